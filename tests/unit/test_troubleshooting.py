"""docs/troubleshooting.md quotes what the code says: a message that changes must change there, too."""

import re
from pathlib import Path

import pytest

from service.problems import PROBLEMS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Cells of the table below each heading line `| heading | ...`."""
    found = []
    for table in re.findall(rf"^\| {re.escape(heading)} \|.*\n\|.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE):
        found += [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    return found


def quoted() -> list[str]:
    """Every message of the page, as the parts between its gaps (`...`)."""
    texts = [text for row in rows("what it says") for text in re.findall(r"`([^`]+)`", row[0])]
    return [part.strip() for text in texts for part in text.split("...") if len(part.strip()) > len("tensorrt")]


@pytest.fixture(scope="module")
def sources() -> str:
    """All code that may say something, each text as it is put together from neighbouring literals."""
    paths = [path for stage in ("training", "export", "service") for path in (ROOT / stage).rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*paths, ROOT / "Makefile"])
    text = re.sub(r'"\s*\n\s*f?"', "", text)
    return re.sub(r"\{[^{}\n]*\}", "...", text)


@pytest.mark.parametrize("message", sorted(set(quoted()) - {"address already in use", "HEATQUERY_"}))
def test_a_message_that_is_explained_is_one_that_can_come(message: str, sources: str) -> None:
    assert message in sources


def test_every_status_goes_with_its_problem() -> None:
    known = {(str(problem.status), problem.code) for problem in PROBLEMS.values()}
    told = {(row[0], code) for row in rows("status") for code in re.findall(r"`([^`]+)`", row[1])}
    assert told
    assert told <= known
