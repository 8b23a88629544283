"""Last touches on each page: what a screen reader, a server or a preview would stumble upon."""

import re
from urllib.parse import urlsplit

EMPTY_HEADER = re.compile(r'<th class="head([^>]*)>(?:<p></p>)?</th>')


def touch(app, pagename, templatename, context, doctree):
    body = context.get("body") or ""
    # An empty corner of a table is no header; an entry of the bibliography is an item of its list.
    body = EMPTY_HEADER.sub(r'<td class="head\1></td>', body)
    context["body"] = body.replace(' role="doc-biblioentry"', ' role="listitem"')

    tags = context.get("metatags", "")
    if doctree is None:
        # pages that Sphinx makes up have no first sentence to be described by
        title = context.get("title") or "Index"
        tags += f'<meta name="description" content="{title}: {app.config.html_title}">\n'
    if not app.config.html_baseurl:
        # without an address of the site there is none of a page
        tags = re.sub(r'<meta property="og:url"[^>]*>\s*', "", tags)
    elif pagename == "404":
        # a server shows this page at any address, so its links start from the site's
        tags = f'<base href="{urlsplit(app.config.html_baseurl).path}">\n' + tags
    context["metatags"] = tags


def setup(app):
    app.connect("html-page-context", touch, priority=900)  # after the tags are written
    return {"parallel_read_safe": True, "parallel_write_safe": True}
