"""``{widget} NAME`` places a widget of the package on a page."""

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from dslbi_ref.figures.widget import widget


class LiveWidget(SphinxDirective):
    required_arguments = 1

    def run(self):
        try:
            html = widget(self.arguments[0])
        except ValueError as error:
            raise self.error(str(error)) from error
        return [nodes.raw("", html, format="html")]


def setup(app):
    app.add_directive("widget", LiveWidget)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
