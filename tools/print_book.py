"""The whole book as one PDF: ``python tools/print_book.py [FOLDER] [--out FILE]``.

Chromium puts every page of the built site, in the order of its contents, into one document, so that
links, page numbers and bookmarks run through the book; then it draws the formulas and prints, and
pypdf writes the words of the bookmarks.
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tools.browser import DRAWN, SITE, chromium, serve, site_folder

# On a page that draws formulas: fetch all pages, give the names on each a prefix of its own, lead
# links to these names. Returns the words of the headings.
GATHER = r"""async () => {
  const first = new URL("index.html", location.href).href;
  const load = async (page) =>
    new DOMParser().parseFromString(await (await fetch(page)).text(), "text/html");
  const nav = (await load(first)).querySelector("nav.bd-links");
  const address = (link) => new URL(link.getAttribute("href"), first).href.split("#")[0];
  const rest = [...nav.querySelectorAll("a.reference.internal")].map(address);
  const pages = [...new Set([first, ...rest])];
  const prefix = new Map(pages.map((page, k) => [page, `p${k}-`]));
  const parts = [];
  for (const page of pages) {
    const part = (await load(page)).querySelector("article");
    part.querySelectorAll(".headerlink, script, .copybtn").forEach((e) => e.remove());
    part.querySelectorAll("[id]").forEach((e) => (e.id = prefix.get(page) + e.id));
    part.querySelectorAll("img[src]").forEach((e) => {
      e.src = new URL(e.getAttribute("src"), page).href;
      e.loading = "eager";
    });
    part.querySelectorAll("a[href]").forEach((e) => {
      const [target, name] = new URL(e.getAttribute("href"), page).href.split("#");
      if (prefix.has(target)) e.href = `#${prefix.get(target)}${name || "top"}`;
      else if (new URL(target).origin === location.origin) e.removeAttribute("href");
    });
    part.querySelectorAll("details").forEach((e) => (e.open = true));
    part.id = prefix.get(page) + "top";
    parts.push(part);
  }
  const contents = document.createElement("article");
  contents.className = "bd-article book-contents";
  contents.innerHTML = "<h1>Contents</h1>";
  for (const e of nav.querySelectorAll("p.caption, li.toctree-l1 > a")) {
    const line = contents.appendChild(document.createElement("p"));
    line.className = e.matches("p") ? "book-part" : "book-chapter";
    const words = line.appendChild(document.createElement(e.matches("p") ? "span" : "a"));
    words.textContent = e.textContent.trim();
    if (!e.matches("p")) words.href = `#${prefix.get(address(e))}top`;
  }
  document.body.replaceChildren(parts[0], contents, ...parts.slice(1));
  document.body.className = "book-print";
  document.title = parts[0].querySelector("h1").textContent;
  await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
  const words = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].map((e) => e.innerText);
  MathJax.typesetClear();
  await MathJax.typesetPromise();
  return words;
}"""
STYLE = """
body { font-size: 12.5px; line-height: 1.45; }
article { padding: 0 !important; }
article:not(:first-child) { break-before: page; }
h1 { font-size: 2em; margin-top: 0 !important; }
h2 { font-size: 1.5em; }
h3 { font-size: 1.25em; }
.book-contents p { margin: 0 0 0 1.5em; }
.book-contents p.book-part { margin: 1em 0 0.3em; font-weight: bold; }
"""
FOOT = """<div style="font: 8px sans-serif; width: 100%; text-align: center; color: #555">
<span class="pageNumber"></span></div>"""


def name_bookmarks(path, words):
    """Chromium's bookmarks repeat words where a heading was moved to the next page."""
    from pypdf import PdfWriter
    from pypdf.generic import NameObject, TextStringObject

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # Chromium's file counts its parts wrongly
    writer = PdfWriter(clone_from=path)
    pending, marks = [writer.get_outline_root()], []
    while pending:
        mark = pending.pop()
        marks.append(mark)
        # children come before the neighbour
        pending += [mark[key].get_object() for key in ("/Next", "/First") if key in mark]
    for mark, title in zip(marks[1:], words, strict=True):
        mark[NameObject("/Title")] = TextStringObject(" ".join(title.split()))
    writer.write(path)
    return len(writer.pages)


def print_book(site, out):
    """Returns the number of its pages."""
    with chromium() as browser, serve(site) as base:
        page = browser.new_page(color_scheme="light")
        page.set_default_timeout(300_000)
        page.goto(f"{base}/book/notation.html")
        page.wait_for_function(DRAWN)
        page.add_style_tag(content=STYLE)
        words = page.evaluate(GATHER)
        page.wait_for_function(DRAWN)
        page.pdf(
            path=out,
            format="A4",
            margin={"top": "18mm", "bottom": "18mm", "left": "18mm", "right": "18mm"},
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOT,
            outline=True,
            tagged=True,
        )
    return name_bookmarks(out, words)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SITE, help=f"default: {SITE.name}")
    parser.add_argument("--out", type=Path, help="default: dslbi.pdf beside the folder")
    args = parser.parse_args()
    site = site_folder(args.folder)
    out = args.out or site.parent / "dslbi.pdf"
    count = print_book(site, out)
    print(f"{out}: {count} pages, {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
