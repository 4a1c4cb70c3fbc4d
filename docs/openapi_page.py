"""Every call of the service as Markdown, made of the description that the service gives of itself (`/openapi.json`)."""

import json
from collections.abc import Iterator
from typing import Any

from service.app import create_app
from service.settings import Settings

Schema = dict[str, Any]


def http_reference() -> str:
    """The calls by their groups, then the documents that they take and give."""
    description = create_app(Settings()).openapi()
    groups: dict[str, list[str]] = {}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).extend(call(method.upper(), path, operation))
    blocks = [block for name, calls in groups.items() for block in (f"## {name.capitalize()}", *calls)]
    blocks.append("## Documents")
    for name, schema in sorted(description["components"]["schemas"].items()):
        blocks += document(name, schema)
    return "\n\n" + "\n\n".join(blocks) + "\n"


def call(method: str, path: str, operation: Schema) -> Iterator[str]:
    """One call: what it does, what it takes and what it answers."""
    yield f"### {method} {path}"
    yield operation.get("description") or operation["summary"]
    if parameters := operation.get("parameters"):
        yield table(
            ("parameter", "in", "type", ""),
            ((f"`{p['name']}`", p["in"], type_of(p["schema"]), meaning(p)) for p in parameters),
        )
    if body := operation.get("requestBody"):
        yield "Takes " + ", ".join(f"`{kind}`" for kind in body["content"]) + "."
    answers = operation["responses"].items()
    yield table(("status", "answers", ""), ((s, kinds(a), a.get("description", "")) for s, a in answers))


def document(name: str, schema: Schema) -> Iterator[str]:
    """One document and its fields."""
    yield f"### {name}"
    if text := schema.get("description"):
        yield text
    required = schema.get("required", [])
    fields = schema.get("properties", {}).items()
    if fields:
        names = {name: f"`{name}`" + ("" if name in required else ", optional") for name, _ in fields}
        rows = ((names[name], type_of(field), meaning({"schema": field})) for name, field in fields)
        yield table(("field", "type", ""), rows)


def kinds(answer: Schema) -> str:
    """The media types of an answer, each with its document where it has one."""
    found = []
    for kind, content in answer.get("content", {}).items():
        documents = type_of(content.get("schema", {}))
        found.append(f"`{kind}`" + (f": {documents}" if "#" in documents else ""))
    return "<br>".join(found)


def type_of(schema: Schema) -> str:
    """A schema in a few words, with links to documents."""
    if name := schema.get("$ref", "").rpartition("/")[2]:
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if options := schema.get("anyOf", schema.get("oneOf")):
        return " or ".join(type_of(option) for option in options if option.get("type") != "null")
    if schema.get("type") == "array":
        return f"array of {type_of(schema['items'])}" if schema.get("items") else "array"
    return schema.get("type", "any") + bounds(schema)


def bounds(schema: Schema) -> str:
    """The range of a number, where one is stated."""
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f", {least} to {most}"
    return f", at least {least}" if least is not None else f", at most {most}" if most is not None else ""


def meaning(parameter: Schema) -> str:
    """What a parameter or field says, and what it is without a value."""
    schema = parameter["schema"]
    text = parameter.get("description") or schema.get("description", "")
    default = schema.get("default")
    return text if default in (None, [], {}) else f"{text} Default: `{json.dumps(default)}`."


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    cells = ([cell.replace("\n", " ").replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
