"""docs/reliability.md has all cases, and the tests that it names are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(\w+/test_\w+\.py)::(test_\w+)`", PAGE)))
ROWS = re.findall(r"^\| \d{1,2} \| .*$", PAGE, re.MULTILINE)


def test_all_cases_are_listed_in_order() -> None:
    assert [int(row.split()[1]) for row in ROWS] == list(range(1, 34))


@pytest.mark.parametrize("row", ROWS, ids=range(1, len(ROWS) + 1))
def test_a_case_names_a_test_or_says_that_it_is_not_built(row: str) -> None:
    assert "::test_" in row or "not built yet" in row


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_named_test_is_there(file: str, test: str) -> None:
    assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")
