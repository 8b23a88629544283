"""``{figure-list}`` lists the pictures of the book by page, with a link and what each shows."""

import re
from html import unescape

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

LEAST = 60  # characters that say what a picture shows
SENTENCE = re.compile(r"(?<=[.:!?])\s+(?=[A-Z])")
# Of a slider every frame has the words of the whole, and then its own label.
MOVING = re.compile(r'<img[^>]*? alt="([^"]+)"(?: data-label="([^"]*)")?')


class Place(nodes.General, nodes.Element):
    """Where the list will stand, once all pages have been read."""


class FigureList(SphinxDirective):
    def run(self):
        return [Place()]


def opening(text):
    """Return the first sentences, as many as say something."""
    said = ""
    for sentence in SENTENCE.split(text):
        said = f"{said} {sentence}".strip()
        if len(said) >= LEAST:
            break
    return said


def described(node):
    """Return the words of a picture for who hears the page, or None where the node is none."""
    if isinstance(node, nodes.image):
        return node.get("alt")
    if isinstance(node, nodes.raw) and (found := MOVING.search(node.astext())):
        words, label = map(unescape, found.groups(default=""))
        return words.removesuffix(f", {label}")
    return None


def pictures(doctree):
    """Yield the section of each picture and what it shows."""
    for node in doctree.findall():
        if words := described(node):
            section = node
            while not isinstance(section, nodes.section):
                section = section.parent
            yield section, opening(words)


def in_order(env, name):
    """Yield the page and those below it, as the contents have them."""
    yield name
    for below in env.toctree_includes.get(name, ()):
        yield from in_order(env, below)


class Fill(SphinxPostTransform):
    default_priority = 5

    def run(self):
        for place in list(self.document.findall(Place)):
            pages = in_order(self.env, self.config.root_doc)
            place.replace_self([block for page in pages for block in self.listed(page)])

    def listed(self, page):
        """Return the title of a page and the list of its pictures; nothing where it has none."""
        items = [self.item(page, *picture) for picture in pictures(self.env.get_doctree(page))]
        if not items:
            return []
        title = self.link(page, "", self.env.titles[page].astext())
        return [nodes.paragraph("", "", nodes.strong("", "", title)), nodes.bullet_list("", *items)]

    def item(self, page, section, words):
        link = self.link(page, "#" + section["ids"][0], section.next_node(nodes.title).astext())
        return nodes.list_item("", nodes.paragraph("", "", link, nodes.Text(". " + words)))

    def link(self, page, anchor, words):
        uri = self.app.builder.get_relative_uri(self.env.docname, page) + anchor
        return nodes.reference("", words, internal=True, refuri=uri)


def setup(app):
    app.add_node(Place)
    app.add_directive("figure-list", FigureList)
    app.add_post_transform(Fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
