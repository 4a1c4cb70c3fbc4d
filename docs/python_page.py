"""The modules of a folder as Markdown: what their docstrings say, read off the source without importing anything."""

import ast
import re
from collections.abc import Iterable, Iterator
from inspect import cleandoc
from itertools import accumulate, pairwise
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef

WIDTH = 100
"""Longest signature on one line."""

_SECTION = re.compile(r"^(Args|Returns|Raises|Yields):$")
_ENTRY = re.compile(r"^    (\*{0,2}[\w.]+(?:, [\w.*]+)*): ")
_CODE = re.compile(r"(``?[^`]+``?)")


def python_reference(root: Path, folder: Path, elsewhere: Iterable[Path] = ()) -> str:
    """Every module of a folder.

    Args:
        root: from where modules are imported.
        elsewhere: inner folders that have a page of their own.
    """
    blocks: list[str] = []
    for path in sorted(folder.rglob("*.py")):
        if path.stem != "__main__" and not any(other in path.parents for other in elsewhere):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            blocks += module(name, path.read_text(encoding="utf-8"))
    return "\n\n" + "\n\n".join(blocks) + "\n"


def module(name: str, source: str) -> Iterator[str]:
    """One module: what it is, then what it offers, as far as that has a docstring."""
    tree = ast.parse(source)
    yield f"## {name}"
    yield prose(ast.get_docstring(tree))
    if values := documented_values(tree):
        yield values
    for node in tree.body:
        if isinstance(node, Function) and is_public(node):
            yield from [f"### {node.name}()", signature(node), prose(ast.get_docstring(node))]
        elif isinstance(node, ast.ClassDef) and is_public(node):
            yield from class_blocks(node)


def class_blocks(node: ast.ClassDef) -> Iterator[str]:
    """A class, its documented fields, and its public methods."""
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    yield f"### {node.name}"
    yield code(f"class {node.name}({bases})" if bases else f"class {node.name}")
    yield prose(ast.get_docstring(node))
    if values := documented_values(node):
        yield values
    for method in node.body:
        if isinstance(method, Function) and (is_public(method) or method.name == "__init__"):
            yield from [signature(method), prose(ast.get_docstring(method))]


def documented_values(node: ast.Module | ast.ClassDef) -> str:
    """Constants of a module, or fields of a class: those with a text below them, as a list."""
    lines = []
    for value, below in pairwise(node.body):
        text = bare_text(below)
        if text and isinstance(value, ast.Assign | ast.AnnAssign):
            target = ast.unparse(value.targets[0] if isinstance(value, ast.Assign) else value.target)
            kind = f": {ast.unparse(value.annotation)}" if isinstance(value, ast.AnnAssign) else ""
            if not target.startswith("_"):
                lines.append(f"- `{target}{kind}`: {escaped(cleandoc(text).replace(chr(10), ' '))}")
    return "\n".join(lines)


def bare_text(node: ast.stmt) -> str:
    """The text of a statement that is nothing else, as documentation of the one above it."""
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
        case _:
            return ""


def is_public(node: Function | ast.ClassDef) -> bool:
    """Whether a function or class is meant for others, and says what it is."""
    return not node.name.startswith("_") and bool(ast.get_docstring(node))


def signature(node: Function) -> str:
    """How a function is called."""
    kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    end = f") -> {ast.unparse(node.returns)}" if node.returns else ")"
    parts = arguments(node.args)
    head = f"{kind} {node.name}({', '.join(parts)}{end}"
    if len(head) > WIDTH:
        head = f"{kind} {node.name}(\n    " + ",\n    ".join(parts) + f",\n{end}"
    decorators = [f"@{ast.unparse(item)}" for item in node.decorator_list if isinstance(item, ast.Name)]
    return code("\n".join([*decorators, head]))


def arguments(given: ast.arguments) -> list[str]:
    """Each argument as it is written, with its type and default."""
    text = ast.unparse(given)
    depths = accumulate((letter in "([{") - (letter in ")]}") for letter in text)
    ends = [i for i, depth in enumerate(depths) if depth == 0 and text[i : i + 2] == ", "]
    return [text[i:j].strip(", ") for i, j in pairwise([0, *ends, len(text)])] if text else []


def code(text: str) -> str:
    """A block of Python."""
    return f"```python\n{text}\n```"


def prose(docstring: str | None) -> str:
    """A docstring as Markdown: its sections become lists."""
    lines: list[str] = []
    section = ""
    for line in (docstring or "").splitlines():
        if match := _SECTION.match(line):
            section = match[1]
            lines += ([""] if lines[-1:] != [""] else []) + [f"**{section}**", ""]
        elif section and line.startswith("    "):
            entry = _ENTRY.match(line)
            lines.append(f"- `{entry[1]}`: {escaped(line[entry.end() :])}" if entry else f"  {escaped(line.strip())}")
        else:
            section = ""
            lines.append(escaped(line))
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text in which nothing but code between backticks is markup."""
    parts = _CODE.split(text)
    return "".join(part if index % 2 else re.sub(r"([<*_\[\]{}|])", r"\\\1", part) for index, part in enumerate(parts))
