"""Settings of the site. Build from the repository's root: ``make book``."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "book" / "_ext")]

project = "dslbi"
author = "The dslbi developers"
copyright = author
html_title = "Sparse learning along differential inclusion paths"
language = "en"

# Where the site and its source live, if anywhere: with BOOK_URL the site gets a sitemap and
# canonical addresses, with BOOK_REPOSITORY (an address at GitHub or GitLab) links that launch the
# notebooks.
book_url = os.environ.get("BOOK_URL", "").rstrip("/")
book_url += "/" if book_url else ""
repository = os.environ.get("BOOK_REPOSITORY", "")

# The source folder is the root, so that pages and links name files as they lie in the repository.
root_doc = "book/index"
external_toc_path = "book/_toc.yml"
include_patterns = ["book/**", "notebooks/**"]
exclude_patterns = ["**/_build", "**.ipynb_checkpoints", ".venv*"]

extensions = [
    "myst_nb",
    "docstrings",
    "figure_list",
    "finish",
    "live_widgets",
    "offline_mathjax",
    "path_costs",
    "public_names",
    "records",
    "soak_memory",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_external_toc",
    "sphinx_proof",
    "sphinxcontrib.bibtex",
    "sphinxext.opengraph",
    "theory_figures",
]

# Notebooks are committed with their outputs and proven by nbval; BOOK_EXECUTE=force runs them here.
nb_execution_mode = os.environ.get("BOOK_EXECUTE", "off")
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_ipywidgets_js = {}  # the widgets' scripts would come from elsewhere
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "smartquotes"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

# The documentation of NumPy and torch cannot be asked offline, so their names stay words.
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_preprocess_types = True
napoleon_use_ivar = True
napoleon_use_rtype = False
highlight_language = "text"  # of displays in docstrings; everything else names its language
nitpick_ignore_regex = [(r"py:.*", r"(?!dslbi_).*")]

prf_realtyp_to_countertyp = dict.fromkeys(
    ["theorem", "lemma", "proposition", "definition", "remark", "algorithm", "example"], "theorem"
)
math_numfig = True
numfig = True

html_theme = "sphinx_book_theme"
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_extra_path = ["_root"]  # index.html of the site leads to book/index.html
html_additional_pages = {"404": "404.html"}
html_sidebars = {"**": ["logo.html", "search-button-field.html", "sbt-sidebar-nav.html"]}
templates_path = ["_templates"]
html_domain_indices = False  # the general index has it all
html_copy_source = True
html_sourcelink_suffix = ""
html_context = {"default_mode": "auto"}
html_theme_options = {
    "path_to_docs": "",
    "navbar_persistent": [],  # else a second search bar lies on top of every page
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "logo": {"alt_text": "dslbi, the book"},
}
ogp_site_url = book_url
ogp_site_name = html_title
ogp_social_cards = {"enable": False}
ogp_enable_meta_description = True

if book_url:
    html_baseurl = book_url
    ogp_use_first_image = True  # of a page without one, and of a drawing as SVG:
    ogp_image = "_static/filters_path.png"
    ogp_image_alt = "Filters enter one after the other while a network trains"
    extensions.append("sphinx_sitemap")
    sitemap_url_scheme = "{link}"
    sitemap_excludes = ["404.html", "genindex.html", "search.html"]
if repository:
    html_theme_options |= {
        "repository_url": repository,
        "repository_branch": "main",
        "use_repository_button": True,
        "launch_buttons": {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        },
    }
