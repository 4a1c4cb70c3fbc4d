"""The blocks of docs/clients do what they say: they run, one after the other, against a service.

A block that needs what is not installed here is marked in its fence (```python needs=fiftyone) and only compiled.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

import service.client
from service.settings import Settings
from toy_service import RunningService, write_model_folder

PAGES = Path(__file__).resolve().parents[2] / "docs" / "clients"
ADDRESS = "http://127.0.0.1:8000"
CLASSES = ("airplane", "storage tank")  # of the pages, in place of the toy's


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    marks: str
    text: str


def read_blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w+)([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page.name, line, match[1], match[2].strip(), match[3])


BLOCKS = [block for page in sorted(PAGES.glob("*.md")) for block in read_blocks(page)]
PYTHON_PAGES = sorted({block.page for block in BLOCKS if block.language == "python" and not block.marks})
SHELL_BLOCKS = [block for block in BLOCKS if block.language == "sh" and not block.marks]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, toy_graphs: dict[str, bytes]) -> Iterator[str]:
    """A service whose classes have the names of the pages."""
    models = tmp_path_factory.mktemp("models")
    folder = write_model_folder(models / "toy" / "1", toy_graphs)
    manifest = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**manifest, "classes": CLASSES}))
    service = RunningService.start(Settings(models=models, threads=1))
    yield str(service.client.base_url)
    service.stop()


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw_scene: Callable[..., Image.Image]) -> Path:
    """A folder with a picture.jpg and a mosaic.tif, made the current one."""
    folder = tmp_path / "work"
    folder.mkdir()
    draw_scene(320, 240, (64, 64, 64, "red"), (192, 128, 64, "blue")).save(folder / "picture.jpg", quality=95)
    draw_scene(600, 400, (32, 32, 32, "red"), (384, 256, 32, "blue")).save(folder / "mosaic.tif")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_python_blocks_run_in_the_order_of_the_page(page: str, address: str, workplace: Path) -> None:
    namespace: dict[str, Any] = {"__name__": page}
    for block in BLOCKS:
        if block.page == page and block.language == "python" and not block.marks:
            code = "\n" * block.line + block.text.replace(ADDRESS, address)  # so that a traceback names the line
            exec(compile(code, PAGES / page, "exec"), namespace)
    namespace["client"].close()  # as pages need not, whose programs end


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=lambda block: f"{block.page}-{block.line}")
def test_a_shell_block_runs(block: Block, address: str, workplace: Path) -> None:
    script = f"set -euo pipefail\n{block.text.replace(ADDRESS, address)}"
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    problems = [text for path in workplace.iterdir() if '"title":' in (text := path.read_bytes().decode("latin-1"))]
    assert not problems
    if "threshold=7" not in block.text:
        assert '"title":' not in ran.stdout


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "python"], ids=lambda block: f"{block.page}-{block.line}"
)
def test_a_python_block_is_python_and_takes_from_the_client_what_it_has(block: Block) -> None:
    compile(block.text, block.page, "exec")
    for names in re.findall(r"^from service\.client import (.+)$", block.text, re.MULTILINE):
        for name in names.split(", "):
            assert name in service.client.__all__


def test_every_page_is_in_the_index() -> None:
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    assert all(f"]({page.name})" in index for page in PAGES.glob("*.md") if page.name != "README.md")
