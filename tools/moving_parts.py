"""What moves on a page, for check_book.py: sliders, widgets, and the tables of the records."""


def sliders(tab):
    """The arrow keys show the next picture and its label; returns how many sliders there are."""
    figures = tab.page.locator("figure.slider").all()
    for figure in figures:
        handle, words = figure.locator("input"), figure.locator("span")
        before = words.inner_text()
        first = figure.locator("img:visible").get_attribute("data-label")
        at_end = handle.input_value() == handle.get_attribute("max")
        handle.press("ArrowLeft" if at_end else "ArrowRight")
        shown = figure.locator("img:visible")
        tab.expect(shown.count() == 1, f"a slider must show one picture, got {shown.count()}")
        moved = shown.first.get_attribute("data-label") not in (None, first)
        tab.expect(
            moved and words.inner_text() != before, f"the slider at {before!r} does not move"
        )
        loaded = shown.first.evaluate("image => image.decode().then(() => image.naturalWidth)")
        tab.expect(loaded, f"a picture of the slider at {before!r} does not load")
    return len(figures)


def widgets(tab):
    """Each slider of each widget changes its picture, by the keys; Play lets the time run, and with
    less motion makes one step. Returns how many widgets there are.
    """
    found = tab.page.locator("[data-live]").all()
    for widget in found:
        name = widget.evaluate("e => e.localName")
        picture, words = widget.locator("[role=img]"), widget.locator("p")
        tab.expect(words.inner_text().strip(), f"{name} says nothing")
        tab.expect(not widget.locator("> img").is_visible(), f"{name} shows its picture twice")
        for handle in widget.locator("input").all():
            scenes = []
            for key in ("Home", "End"):
                handle.press(key)
                scenes.append((handle.get_attribute("aria-valuetext"), picture.inner_html()))
            moved = all(low != high for low, high in zip(*scenes, strict=True))
            tab.expect(moved, f"{name}: the slider at {scenes[0][0]} does not move")
        for point in widget.locator("[data-drag]").all():
            drags(tab, name, point, widget.locator("input"))
        for button in widget.locator("button").all():
            plays(tab, name, button, widget.locator(".time input"))
    return len(found)


def drags(tab, name, point, inputs):
    """A point that is dragged moves its slider alone, and stays with the pointer."""
    for k, handle in enumerate(inputs.all()):  # apart from one another, and from their ends
        handle.press("Home")
        for _ in range(2 * k + 1):
            handle.press("PageUp")
    point.scroll_into_view_if_needed()
    place, before = point.bounding_box(), [handle.input_value() for handle in inputs.all()]
    x, y = (place[key] + place[size] / 2 for key, size in (("x", "width"), ("y", "height")))
    up = y - 40 if point.evaluate("e => e.cy.baseVal.value > 100") else y + 40
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    tab.page.mouse.move(x, up, steps=4)
    tab.page.mouse.up()
    tab.page.mouse.move(x, y)
    after, place = [handle.input_value() for handle in inputs.all()], point.bounding_box()
    moved = sum(a != b for a, b in zip(before, after, strict=True))
    tab.expect(moved == 1, f"{name}: a dragged point must move one slider, got {moved}")
    off = abs(place["y"] + place["height"] / 2 - up)
    tab.expect(off < 8, f"{name}: a dragged point is {off:.0f} pixels away from the pointer")


def plays(tab, name, button, time):
    time.press("Home")
    button.click()
    tab.page.wait_for_timeout(300)
    button.click()
    tab.expect(0 < float(time.input_value()), f"{name}: Play does not move the time")
    tab.page.emulate_media(reduced_motion="reduce")
    time.press("Home")
    button.click()
    after = time.input_value()
    tab.page.wait_for_timeout(200)
    tab.expect(0 < float(after), f"{name}: no step where less motion is wanted")
    tab.expect(time.input_value() == after, f"{name} moves by itself where less motion is wanted")
    tab.page.emulate_media(reduced_motion="no-preference")


def tables(tab):
    """A heading sorts its table, the field finds rows, and a plot is drawn; of the records' tables.
    Returns how many there are.
    """
    found = tab.page.locator("[data-record]").all()
    for table in found:
        table.evaluate("e => (e.closest('details').open = true)")
        name, head = table.locator(".record-rows").get_attribute("aria-label"), table.locator("th")
        cells = table.locator("tbody td:first-child")
        orders = []
        for way in ("ascending", "descending"):
            head.first.locator("button").press("Enter")
            tab.expect(head.first.get_attribute("aria-sort") == way, f"{name}: not sorted {way}")
            orders.append(cells.all_inner_texts())
        tab.expect(len(set(orders[0])) < 2 or orders[0] != orders[1], f"{name}: one order only")
        if table.locator("input").count():
            table.locator("input").fill("no such row")
            tab.expect(cells.count() == 0, f"{name}: rows are found for any word")
            table.locator("input").fill("")
        if table.locator(".record-drawn").count():
            table.locator(".record-drawn > summary").press("Enter")
            table.locator(".record-plot > svg").wait_for()
    return len(found)
