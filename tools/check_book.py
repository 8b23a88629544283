"""Read every page of the built site as a reader would: ``python tools/check_book.py [FOLDER]``.

First without a browser: links lead to pages and headings that exist, pictures are described, the
site is not too large. Then in headless Chromium, from a local server and again from ``file://``:
formulas are drawn, the console is silent, nothing is asked from another machine, axe finds nothing,
in light and in dark, nothing overflows the screen of a phone, and no formula that of a desk;
sliders and widgets move, tables of records are sorted, code can be copied, the notebook downloaded,
and the search finds. One line per page; exit status 1 if there is a fault.

``--without-browser`` stops after the first part.
"""

import argparse
import sys
import time
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tools.browser import DRAWN, SITE, chromium, serve, site_folder
from tools.moving_parts import sliders, tables, widgets

SIZE_LIMIT = 40e6  # bytes of the whole site
DESK, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}
# Formulas that begin left of their place: no scrolling brings the beginning back.
CUT = """[...document.querySelectorAll('div.math > mjx-container')].filter(e =>
    e.getBoundingClientRect().left < e.parentElement.getBoundingClientRect().left - 1).length"""
# Formulas that a desk shows with a scroll bar, the folded ones too.
SCROLLED = """() => {
    const folded = [...document.querySelectorAll('details:not([open])')];
    folded.forEach(e => e.open = true);
    const wide = [...document.querySelectorAll('div.math, mjx-container[display]')].filter(e =>
        e.clientWidth && e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.slice(0, 40));
    folded.forEach(e => e.open = false);
    return wide;
}"""
# preload: else axe itself asks for style sheets, at addresses that do not exist.
# In the dark only the colours differ.
OPTIONS = {"preload": False}
DARK = OPTIONS | {"runOnly": ["color-contrast"]}
PATIENCE = 120_000  # milliseconds, for one step of the browser


class Page(HTMLParser):
    """What a page links to, the names that can be linked to, and pictures without words."""

    def __init__(self, text):
        super().__init__()
        self.links, self.names, self.mute = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.names.update(filter(None, (found.get("id"), found.get("name"))))
        for key in ("href", "src"):
            if found.get(key) and not found[key].startswith("data:"):
                self.links.append(found[key])
        alt = found.get("alt", "")
        if tag == "img" and (alt is None or alt.endswith((".png", ".svg")) or "alt" not in found):
            self.mute.append(found.get("src", "")[:60])


def read(site):
    """Every page of the site, by its path; the theme's fragments are no pages."""
    paths = sorted(p for p in site.rglob("*.html") if "_static" not in p.parts)
    return {p.relative_to(site).as_posix(): Page(p.read_text(encoding="utf-8")) for p in paths}


def dead(link, here, pages, site):
    """Why a link of the page ``here`` leads nowhere; None if it is good or leaves the site."""
    address, name = urldefrag(urljoin("http://site/" + here, link))
    parts = urlsplit(address)
    if parts.hostname != "site":
        return None
    path = unquote(parts.path).lstrip("/")
    if not (site / path).is_file():
        return f"link to a file that does not exist: {link}"
    if name and path in pages and unquote(name) not in pages[path].names:
        return f"link to a heading that does not exist: {link}"
    return None


def read_faults(pages, site):
    """Per page, what is wrong in the files as they lie there."""
    faults = {}
    for here, page in pages.items():
        found = [dead(link, here, pages, site) for link in dict.fromkeys(page.links)]
        found += [f"picture without a description: {source}" for source in page.mute]
        faults[here] = [fault for fault in found if fault]
    size = sum(p.stat().st_size for p in site.rglob("*") if p.is_file())
    if size > SIZE_LIMIT:
        faults["index.html"].append(f"the site must be below {SIZE_LIMIT:.0f} bytes, got {size}")
    return faults


class Tab:
    """A browser tab that lets nothing out of the machine and remembers what went wrong."""

    def __init__(self, context):
        self.faults = []
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.route("**/*", self._gate)
        self.page.on("pageerror", lambda error: self.fault(f"script: {error}"))
        self.page.on("console", self._console)

    def fault(self, text):
        if text not in self.faults:
            self.faults.append(text)

    def expect(self, truth, text):
        if not truth:
            self.fault(text)

    def take(self):
        found, self.faults = self.faults, []
        return found

    def open(self, address):
        from playwright.sync_api import TimeoutError

        self.page.goto(address)
        try:
            self.page.wait_for_function(DRAWN)
        except TimeoutError:
            self.fault("formulas are not drawn")
        wrong = self.page.locator("mjx-merror, [data-mjx-error]").count()
        self.expect(not wrong, f"{wrong} formulas with an error")

    def _gate(self, route):
        parts = urlsplit(route.request.url)
        if parts.hostname in (None, "", "127.0.0.1"):
            return route.continue_()
        self.fault(f"asks another machine: {route.request.url}")
        return route.abort()

    def _console(self, message):
        if message.type == "error":
            self.fault(f"console: {message.text} ({message.location['url']})")


def reads_formula(tab, rule, node):
    """axe takes a table header that is a formula for empty; screen readers get its MathML."""
    inside = tab.page.locator(node["target"][0]).locator("mjx-container")
    return rule == "empty-table-header" and inside.count() > 0


def axe(tab, mode):
    from axe_playwright_python.sync_playwright import Axe

    options = DARK if mode == "dark" else OPTIONS
    for found in Axe().run(tab.page, options=options).response["violations"]:
        nodes = [node for node in found["nodes"] if not reads_formula(tab, found["id"], node)]
        where = [node["target"][0] for node in nodes][:3]
        tab.expect(not nodes, f"axe, {mode}: {found['id']}, {len(nodes)} x, {where}")


def colours(tab):
    """axe in both modes; the page must follow the reader's system."""
    tab.page.add_style_tag(content="* {transition: none !important}")  # no colour on its way
    for mode in ("light", "dark"):
        tab.page.emulate_media(color_scheme=mode)
        tab.page.wait_for_function(f"document.documentElement.dataset.theme == '{mode}'")
        axe(tab, mode)
    tab.page.emulate_media(color_scheme="light")


def widths(tab):
    """Nothing is wider than the screen but what scrolls by itself, and that from its beginning."""
    for screen in (PHONE, DESK):
        tab.page.set_viewport_size(screen)
        wide = tab.page.evaluate("document.documentElement.scrollWidth")
        tab.expect(wide <= screen["width"], f"{wide} pixels wide on a screen of {screen['width']}")
        cut = tab.page.evaluate(CUT)
        tab.expect(not cut, f"{cut} formulas cut off on a screen of {screen['width']}")
    scrolled = tab.page.evaluate(SCROLLED)  # on the last screen, the desk
    tab.expect(not scrolled, f"formulas with a scroll bar at {DESK['width']}: {scrolled}")


def notebook(tab, name):
    """Its first block of code can be copied, and the file downloaded."""
    block = tab.page.locator("div.highlight:has(.copybtn)").first
    block.hover()
    block.locator(".copybtn").click()
    copied = tab.page.evaluate("navigator.clipboard.readText()")
    tab.expect(copied.split() == block.locator("pre").inner_text().split(), "copying gives no code")
    tab.page.locator(".dropdown-download-buttons > button").click()
    with tab.page.expect_download() as download:
        tab.page.locator(".btn-download-source-button").click()
    tab.expect(download.value.suggested_filename == name, f"the download must be {name}")


def search(tab, base):
    """The search page finds the word in the notebooks, and shows nothing for nonsense."""
    for word, found in (("Bregman", True), ("qzxvw", False)):
        tab.open(f"{base}/search.html?q={word}")
        tab.page.locator("#search-results p.search-summary").filter(has_text="earch").wait_for()
        tab.page.wait_for_function(
            "!document.querySelector('#search-results .search-summary').innerText.includes('...')"
        )
        hits = tab.page.locator("#search-results li").count()
        tab.expect(bool(hits) == found, f"search for {word}: {hits} pages")


def browse(site, pages, faults):
    """Every page from a server and from a file; adds to the faults, yields a line per page."""
    with chromium() as browser, serve(site) as base:
        context = browser.new_context(viewport=DESK, color_scheme="light")
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=base)
        tab = Tab(context)
        for here in pages:
            tab.open(f"{base}/{here}")
            tab.page.wait_for_load_state()
            formulas = tab.page.locator(".math").count()
            if here == "index.html":
                tab.page.wait_for_url("**/book/index.html")
            colours(tab)
            widths(tab)
            moved, live, sorts = sliders(tab), widgets(tab), tables(tab)
            if here.startswith("notebooks/"):
                notebook(tab, Path(here).with_suffix(".ipynb").name)
            if here == "search.html":
                search(tab, base)
            local = Tab(context)
            local.open((site / here).resolve().as_uri())
            sliders(local)
            widgets(local)
            if here == "search.html":
                search(local, site.resolve().as_uri())
            faults[here] += tab.take() + [f"from a file: {fault}" for fault in local.take()]
            local.page.close()
            what = f"{formulas} formulas, {moved} sliders, {live} widgets"
            yield here, f"{what}, {sorts} tables of records" if sorts else what


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SITE, help=f"default: {SITE.name}")
    parser.add_argument("--without-browser", action="store_true", help="files only")
    parser.add_argument("--only", default="*", help="pattern of the pages, e.g. 'notebooks/*'")
    args = parser.parse_args()
    began, site = time.monotonic(), site_folder(args.folder)
    pages = read(site)
    faults = read_faults(pages, site)
    pages = {here: page for here, page in pages.items() if fnmatch(here, args.only)}
    lines = ((p, f"{len(pages[p].links)} links") for p in pages)
    for here, what in lines if args.without_browser else browse(site, pages, faults):
        found = faults[here]
        print("\n    ".join([f"{'FAULT' if found else 'ok':6}{here}: {what}", *found]), flush=True)
    bad = sum(len(faults[here]) for here in pages)
    print(f"{len(pages)} pages, {bad} faults, {time.monotonic() - began:.0f} s")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
