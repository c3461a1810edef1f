"""Sphinx configuration. `sphinx-build -W docs build/docs` builds the site; it needs no network."""

import os
import re
import sys
from html import escape
from pathlib import Path
from typing import Any

from docutils.nodes import Element, TextElement, document, paragraph
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from otel_cloudwatch_flask.version import __version__  # noqa: E402 - the line above makes it importable

project = "otel_cloudwatch_flask"
author = "the contributors"
copyright = "the contributors, MIT license"  # noqa: A001 - Sphinx's name
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["*.py"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
suppress_warnings = ["myst.header"]  # pages of examples may begin with a heading of any level

html_theme = "furo"
html_title = "otel_cloudwatch_flask"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", "")
html_show_sphinx = False

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
python_display_short_literal_types = True


def find_examples(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Generate the page of examples from their README, with each program below its description."""
    if docname == "examples":
        text = (DOCS.parent / "examples" / "README.md").read_text("utf-8")
        source[0] = re.sub(r"^\[.*?\]\(.*?(?=\n\n)", _with_programs, text, flags=re.DOTALL | re.MULTILINE)


def _with_programs(paragraph: re.Match[str]) -> str:
    """Return a paragraph with its links made relative to this folder, followed by the linked programs."""
    found = re.findall(r"\]\(([^)]+\.py)\)", paragraph[0])
    programs = "\n\n".join(f"```{{literalinclude}} ../examples/{path}\n:language: python\n```" for path in found)
    return paragraph[0].replace("](", "](../examples/") + "\n\n" + programs


def find_by_last_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: TextElement) -> Element | None:
    """Resolve a reference by the last part of its name, if exactly one documented object matches."""
    if node["refdomain"] != "py":
        return None
    ending = "." + node["reftarget"].lstrip(".~")
    found = [entry for name, entry in env.domains["py"].data["objects"].items() if name.endswith(ending)]
    if len(found) != 1 or app.builder is None:
        return None
    return make_refnode(app.builder, node["refdoc"], found[0].docname, found[0].node_id, content)


def add_social_card(app: Sphinx, _page: str, _template: str, context: dict[str, Any], doctree: document | None) -> None:
    """Add the tags from which other sites create a link preview: title, first paragraph and picture."""
    if doctree is None or (first := next(doctree.findall(paragraph), None)) is None:
        return
    image = "_static/social-card.png"
    tags = {
        "og:type": "website",
        "og:site_name": project,
        "og:title": context["title"],
        "og:description": " ".join(first.astext().split()),
        "og:image": app.config.html_baseurl + image if app.config.html_baseurl else context["pathto"](image, 1),
        "og:image:alt": "The live page of the package, with a row for each metric",
        "twitter:card": "summary_large_image",
    }
    context["metatags"] += "".join(
        f'<meta property="{name}" content="{escape(value)}">\n' for name, value in tags.items()
    )


def setup(app: Sphinx) -> None:
    """Register the functions above with Sphinx."""
    app.connect("source-read", find_examples)
    app.connect("missing-reference", find_by_last_name)
    app.connect("html-page-context", add_social_card)
