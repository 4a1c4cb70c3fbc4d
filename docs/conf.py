"""The site that `make docs` builds (decision 0025): the Markdown files as they lie in the repository, in an order, with
what a Git host cannot show: drawn diagrams, and references made of the code.

Sphinx runs in the repository root, so that a link that leads somewhere on a Git host leads there on the site too.
"""

import base64
import html
import shutil
import sys
from pathlib import Path

import mmdr
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from openapi_page import http_reference  # noqa: E402  (found by the line above)
from python_page import python_reference  # noqa: E402

project = "heatquery"
html_title = "heatquery"
root_doc = "README"
html_theme = "furo"
html_favicon = "../service/ui/icon.svg"
html_copy_source = False
html_use_index = False
html_show_copyright = False
html_theme_options = {"top_of_page_buttons": []}

include_patterns = ["*.md", "docs/**.md", "benchmarks/README.md", "service/models/**README.md"]
exclude_patterns = [".*", "build", "dist", "runs", "data", "models"]

extensions = ["myst_parser"]
myst_heading_anchors = 4
myst_fence_as_directive = {"mermaid"}

CONTENTS = {
    "Begin": ["docs/quickstart", "docs/concepts", "docs/train", "docs/troubleshooting"],
    "Use": ["docs/clients/README", "docs/scenes", "docs/export", "docs/tensorrt", "docs/model-cards"],
    "Operate": ["docs/deploy", "docs/monitoring", "docs/scale-out", "docs/reliability", "docs/security", "SECURITY"],
    "Figures": ["benchmarks/README", "docs/results", "docs/performance", "docs/serving"],
    "Inside": ["docs/architecture", "docs/model", "docs/data", "docs/decisions/README", "CONTRIBUTING", "CHANGELOG"],
    "Reference": [
        "docs/reference/http",
        "docs/reference/client",
        "docs/reference/service",
        "docs/reference/model",
        "docs/reference/training",
        "docs/reference/export",
    ],
}
PARTS = {
    "docs/clients/README": "docs/clients/[a-z]*",
    "docs/decisions/README": "docs/decisions/0*",
    "docs/results": "docs/ablation/*/table",
    "docs/model-cards": "service/models/*/*/README",
}
CLIENT = ROOT / "service" / "client"


class Mermaid(SphinxDirective):
    """A diagram as a picture; a Git host draws the same text by itself."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content)
        svg = mmdr.render(text).svg()
        width = svg.partition('viewBox="')[2].split()[2]  # at which its letters have the size of the page's
        look = f"width: {float(width):.0f}px; max-width: 100%; background: white"  # its lines are dark on any ground
        data = base64.b64encode(svg.encode()).decode()
        picture = f'<img style="{look}" alt="{html.escape(text)}" src="data:image/svg+xml;base64,{data}">'
        return [nodes.raw("", picture, format="html")]


def add_generated(app: Sphinx, page: str, source: list[str]) -> None:
    """Put after a page's own text what is made for it."""
    if page == root_doc:
        source[0] += "".join(toctree(caption, pages) for caption, pages in CONTENTS.items())
    if page in PARTS:
        source[0] += toctree("", [PARTS[page]])
    folder, _, name = page.rpartition("/")
    if folder == "docs/reference":
        source[0] += reference(name)


def toctree(caption: str, pages: list[str]) -> str:
    """Pages below another one, for the menu alone."""
    options = [":hidden:", ":glob:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["\n\n```{toctree}", *options, "", *(f"/{page}" for page in pages), "```\n"])


def reference(name: str) -> str:
    """What is made of the code for one page of the reference."""
    match name:
        case "http":
            return http_reference()
        case "client":
            return python_reference(ROOT, CLIENT)
        case _:
            return python_reference(ROOT, ROOT / name, elsewhere=[CLIENT])


def copy_front_page(app: Sphinx, error: Exception | None) -> None:
    """README.html is what a server gives for the folder, too."""
    if error is None:
        shutil.copy(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    app.add_directive("mermaid", Mermaid)
    app.connect("source-read", add_generated)
    app.connect("build-finished", copy_front_page)
