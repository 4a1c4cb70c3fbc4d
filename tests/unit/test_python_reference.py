"""The pages of the site that are made of docstrings."""

from pathlib import Path

from python_page import escaped, module, prose, python_reference

ROOT = Path(__file__).resolve().parents[2]

SOURCE = '''"""What it is."""

LIMIT = 3
"""How many."""
_HIDDEN = 4
"""Not told."""


class Box(Base):
    """A box."""

    side: int = 1
    """In pixels."""

    def area(self) -> int:
        """Its area.

        Args:
            unit: of the side,
                or none.
        """

    def _inner(self) -> None:
        """Not told."""


async def ask(*, often: bool = False) -> str:
    """Ask."""
'''


def page() -> str:
    return "\n\n".join(module("a.b", SOURCE))


def test_what_is_public_and_documented_is_told() -> None:
    text = page()
    for part in (
        "## a.b\n",
        "What it is.",
        "- `LIMIT`: How many.",
        "### Box",
        "class Box(Base)",
        "- `side: int`: In pixels.",
    ):
        assert part in text
    assert "async def ask(*, often: bool=False) -> str" in text
    assert "Its area." in text


def test_what_is_private_is_not_told() -> None:
    assert "Not told" not in page()


def test_sections_become_lists_with_their_continuation() -> None:
    assert prose("Do it.\n\nArgs:\n    unit: of the side,\n        or none.") == (
        "Do it.\n\n**Args**\n\n- `unit`: of the side,\n  or none."
    )


def test_a_long_signature_has_an_argument_a_line() -> None:
    arguments = ", ".join(f"argument_{number}: dict[str, int] = {{'a': 1}}" for number in range(4))
    text = "\n".join(module("a", f'"""A."""\ndef call({arguments}) -> None:\n    """Call."""'))
    assert "def call(\n    argument_0: dict[str, int]={'a': 1},\n" in text
    assert ",\n) -> None" in text


def test_only_code_is_markup() -> None:
    assert escaped("a * b of `x * y` in <id>, [0, 1]") == r"a \* b of `x * y` in \<id>, \[0, 1\]"


def test_an_inner_folder_with_its_own_page_is_left_out() -> None:
    client = ROOT / "service" / "client"
    assert "## service.client.retries" in python_reference(ROOT, client)
    assert "## service.client" not in python_reference(ROOT, ROOT / "service", elsewhere=[client])
