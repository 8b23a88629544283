"""Headless Chromium on the built site, for check_book.py and print_book.py."""

import os
import shutil
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).resolve().parents[1] / "book" / "_build" / "html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]
# Done when every formula is drawn; pages without formulas do not load MathJax.
DRAWN = (
    "document.querySelectorAll('.math').length <= document.querySelectorAll('mjx-container').length"
)


def refuse(message):
    """One line, exit status 2."""
    print(message, file=sys.stderr)
    sys.exit(2)


def site_folder(folder):
    if not (folder / "book" / "index.html").is_file():
        refuse(f"the folder must hold the built site (make book), got {folder}")
    return folder


class Handler(SimpleHTTPRequestHandler):
    """Silent, and with the site's own page for an address that does not exist."""

    def log_message(self, *args):
        pass

    def send_error(self, code, message=None, explain=None):
        page = Path(self.directory) / "404.html"
        if code != 404 or not page.is_file():
            return super().send_error(code, message, explain)
        body = page.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve(folder):
    """The site on a free port of this machine; yields its address without a slash at the end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def chromium():
    """A browser: the one that CHROMIUM names, else the first on the path."""
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        refuse("Chromium is needed, and none was found: install it, or name it with CHROMIUM=...")
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        refuse("playwright is needed: pip install -e .[check] -c constraints.txt")
    with sync_playwright() as play:
        try:
            browser = play.chromium.launch(executable_path=program, args=FLAGS)
        except Error as error:
            refuse(
                f"CHROMIUM must name a browser that starts, got {program}: {error.message[:200]}"
            )
        yield browser
        browser.close()
