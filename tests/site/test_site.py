"""The site as it is built from four pages, and the tool that checks it: each fault is seen.

``make book`` builds the whole, and ``make check-book`` reads all of it in a browser.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools import check_book
from tools.check_book import Page, read, read_faults

ROOT = Path(__file__).resolve().parents[2]
TOC = """
format: jb-book
root: book/index
chapters:
  - file: notebooks/01_mirror_descent
  - file: book/figures
  - file: book/records
"""
PAGES = ("index", "figures", "records")
NOTEBOOK = "notebooks/01_mirror_descent.ipynb"
ADDRESS = "https://example.org/books/dslbi"
REPOSITORY = "https://github.com/someone/dslbi"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The first page, a notebook, the figures and the records, with the book's own settings."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "toc.yml").write_text(TOC)
    settings = {
        "external_toc_path": folder / "toc.yml",
        "include_patterns": ",".join([f"book/{name}.md" for name in PAGES] + [NOTEBOOK]),
    }
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-c", "book"]
    command += [f"-D{key}={value}" for key, value in settings.items()]
    places = ["-d", folder / "doctrees", ROOT, folder / "html"]
    env = os.environ | {"BOOK_URL": ADDRESS, "BOOK_REPOSITORY": REPOSITORY}
    done = subprocess.run([*command, *places], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def page(site):
    return (site / "notebooks" / "01_mirror_descent.html").read_text(encoding="utf-8")


def metas(text):
    return dict(re.findall(r'<meta (?:property|name)="([^"]+)" content="([^"]*)"', text))


def test_previews_and_search_engines_are_told_what_the_page_is(page, site):
    found = metas(page)
    assert found["og:url"] == f"{ADDRESS}/notebooks/01_mirror_descent.html"
    assert found["og:title"] == "Mirror descent: one loss, many geometries"
    image = found["og:image"].removeprefix(f"{ADDRESS}/")
    assert (site / image).read_bytes()[1:4] == b"PNG" and image.startswith("_images/")
    assert found["og:image:alt"].startswith("Three panels with the same grey line")
    assert len(found["description"]) > 80 and found["og:description"] == found["description"]
    assert f'<link rel="canonical" href="{found["og:url"]}"' in page


def test_a_page_without_a_picture_of_its_own_is_shown_by_that_of_the_book(site):
    found = metas((site / "book" / "figures.html").read_text(encoding="utf-8"))
    assert found["og:image"] == f"{ADDRESS}/_static/filters_path.png"


def test_the_list_of_figures_has_every_picture_and_leads_to_it(site):
    listed = (site / "book" / "figures.html").read_text(encoding="utf-8")
    article = listed.split("<article", 1)[1].split("</article>", 1)[0]
    found = re.findall(r'<li><p><a class="reference internal" href="([^"#]+)#([^"]+)">', article)
    cells = json.loads((ROOT / "notebooks/01_mirror_descent.ipynb").read_text())["cells"]
    drawn = [o["data"] for c in cells for o in c.get("outputs", []) if "data" in o]
    names = [name for name, _ in found]
    assert names.count("../notebooks/01_mirror_descent.html") == len(drawn) > 5
    assert names.count("index.html") == 2  # the machine, the family
    for name, anchor in found:
        assert f'id="{anchor}"' in (site / "book" / name).read_text(encoding="utf-8")
    assert "Three panels with the same grey line of solutions." in article


@pytest.mark.parametrize("name", ["404", "genindex", "search"])
def test_pages_without_a_source_are_described(site, name):
    text = (site / f"{name}.html").read_text(encoding="utf-8")
    assert len(metas(text)["description"]) > 50


def test_the_sitemap_names_the_pages(site):
    names = ElementTree.parse(site / "sitemap.xml").findall(".//{*}loc")
    found = {element.text.removeprefix(ADDRESS) for element in names}
    assert found == {f"/book/{name}.html" for name in PAGES} | {"/notebooks/01_mirror_descent.html"}


def test_launch_links_point_at_files_of_the_repository(page):
    links = re.findall(r'href="(https://[^"]*01_mirror[^"]*)"', page)
    links = [link for link in links if not link.startswith(ADDRESS)]
    hosts = ("colab.research.google.com/github", "mybinder.org/v2/gh")
    assert all(any(host in link for link in links) for host in hosts)
    for link in links:
        name = re.search(r"(?:main[/?]|tree/|blob/main/)(?:urlpath=\w+/tree/)?(\w+/[\w.]+)$", link)
        assert name and (ROOT / name[1]).is_file(), link


def test_a_page_can_be_downloaded_copied_and_left_in_both_directions(page, site):
    assert (site / "_sources" / "notebooks" / "01_mirror_descent.ipynb").is_file()
    for part in ("01_mirror_descent.ipynb", "copybutton.js", 'class="left-prev"', "theme-switch"):
        assert part in page
    first = (site / "book" / "index.html").read_text(encoding="utf-8")
    assert 'class="right-next"' in first


def test_icon_logo_and_mathematics_are_files_of_the_site(page, site):
    for name in ("logo.svg", "book.css", "book.js", "mathjax/tex-chtml.js"):
        assert f"_static/{name}" in page and (site / "_static" / name).is_file()
    loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]*)"', page)
    assert [address for address in loaded if not address.startswith(ADDRESS)] == []


def test_the_page_for_wrong_addresses_works_at_any_of_them(site):
    text = (site / "404.html").read_text(encoding="utf-8")
    head = text.split("</title>")[0]
    assert '<base href="/books/dslbi/">' in head
    assert 'href="_static/' not in head.split("<base")[0]
    assert 'href="search.html"' in text and 'href="book/index.html"' in text


def test_the_tables_and_the_bibliography_suit_screen_readers(site):
    text = "".join(path.read_text(encoding="utf-8") for path in site.glob("*/*.html"))
    assert "doc-biblioentry" not in text
    assert not re.search(r'<th class="head[^>]*>(<p></p>)?</th>', text)


def test_the_page_of_all_records_has_each_of_them(site):
    text = (site / "book" / "records.html").read_text(encoding="utf-8")
    kept = set(re.findall(r'Kept in <code[^>]*><span class="pre">([^<]*)</span></code>', text))
    results = list((ROOT / "benchmarks" / "results").iterdir())
    assert kept == {f"{path.relative_to(ROOT)}{'/' * path.is_dir()}" for path in results}
    assert text.count("mountRecords(document);") == 1
    assert text.count('<div class="record-table">') > 3 * len(results)


HEAD = '<h1 id="top">T</h1>'
FAULTS = {
    "picture without a description": '<img src="x.png">',
    "picture without a description: x": '<img src="x.png" alt="../_images/x.png">',
    "a file that does not exist: no.html": '<a href="no.html">n</a>',
    "a file that does not exist: ../no.js": '<script src="../no.js"></script>',
    "a heading that does not exist: #no": '<a href="#no">n</a>',
    "a heading that does not exist: b.html#no": '<a href="b.html#no">n</a>',
}


def faults_of(text, folder):
    (folder / "pages").mkdir()
    (folder / "x.png").write_bytes(b"x")
    (folder / "pages" / "x.png").write_bytes(b"x")
    (folder / "index.html").write_text(HEAD)
    (folder / "pages" / "a.html").write_text(HEAD + text)
    (folder / "pages" / "b.html").write_text(HEAD)
    found = read_faults(read(folder), folder)
    assert found.pop("pages/b.html") == []
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_seen(fault, tmp_path):
    (line,) = faults_of(FAULTS[fault], tmp_path)["pages/a.html"]
    assert fault in line


def test_good_links_are_no_faults(tmp_path):
    good = (
        '<a href="b.html#top">1</a><a href="#top">2</a><a href="../index.html?q=1">3</a>'
        '<a href="https://example.org/no">4</a><img alt="" src="data:image/png;base64,AA">'
        '<img alt="a line that rises" src="x.png"><a href="x%2Epng">5</a>'
    )
    assert faults_of(good, tmp_path) == {"index.html": [], "pages/a.html": []}


def test_a_site_that_is_too_large_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(check_book, "SIZE_LIMIT", 10)
    assert "must be below 10 bytes" in faults_of("", tmp_path)["index.html"][0]


def test_a_folder_without_a_site_is_refused(tmp_path):
    for tool in ("check_book.py", "print_book.py"):
        command = [sys.executable, ROOT / "tools" / tool, tmp_path]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2 and done.stdout == ""
        assert re.fullmatch(r"the folder must hold the built site .*, got .*\n", done.stderr)


def test_without_a_browser_one_line_says_so(tmp_path):
    env = os.environ | {"PATH": "", "CHROMIUM": ""}
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "index.html").write_text(HEAD)
    command = [sys.executable, ROOT / "tools" / "check_book.py", tmp_path]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and re.fullmatch(r"Chromium is needed.*\n", done.stderr)


def test_names_are_read_from_every_tag():
    page = Page('<h2 id="a"></h2><a name="b"></a><img src="p.png" alt="two lines">')
    assert page.names == {"a", "b"} and page.links == ["p.png"] and page.mute == []
