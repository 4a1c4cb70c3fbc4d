"""Reads annotation text: lines, fields and numbers, with errors that name file, line and the way out."""

import codecs
import math
import re
from collections.abc import Iterator
from pathlib import Path

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""Narrower than `float`, which takes 1_000, nan and digits of every script."""

WAY_OUT = "correct the line or remove it"


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Text of a file, whatever its line ends; a UTF-8 or UTF-16 byte order mark is honoured.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the bytes are not text in this encoding.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif data.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not {encoding} text; save the file as UTF-8") from error


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """("FILE:LINE", stripped text) of every line that is not blank."""
    # str.splitlines would also break at form feeds and the like, and count lines other than editors do
    for number, line in enumerate(re.split(r"\r\n|\n|\r", read_text(path)), start=1):
        if stripped := line.strip():
            yield f"{path}:{number}", stripped


def number(where: str, what: str, text: str) -> float:
    """A finite number. Raises ValueError otherwise."""
    value = float(text) if NUMBER.fullmatch(text.strip()) else math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: {what} is {text.strip()!r}, not a finite number; {WAY_OUT}")
    return value


def numbers(where: str, what: str, texts: list[str]) -> list[float]:
    """Finite numbers."""
    return [number(where, what, text) for text in texts]


def whole_number(where: str, what: str, text: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`; 3.0 is taken as 3. Raises ValueError otherwise."""
    value = number(where, what, text)
    if not (value.is_integer() and low <= value <= high):
        raise ValueError(f"{where}: {what} is {text.strip()!r}, not a whole number from {low} to {high}; {WAY_OUT}")
    return int(value)


def check_field_count(where: str, fields: list[str], wanted: int, form: str) -> None:
    """Raises ValueError, quoting the form of a line, unless there are `wanted` fields."""
    if len(fields) != wanted:
        raise ValueError(f"{where}: {len(fields)} fields, not the {wanted} of `{form}`; {WAY_OUT}")
