"""Bodies for /docs that FastAPI cannot derive, because handlers read or write them themselves."""

from typing import Any

from pydantic import BaseModel


def inline_schema(model: type[BaseModel]) -> dict[str, Any]:
    """JSON schema of a model without references: those of pydantic do not lead anywhere inside an OpenAPI document."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            target = definitions[node["$ref"].removeprefix("#/$defs/")]
            return resolve({**target, **{key: value for key, value in node.items() if key != "$ref"}})
        return {key: resolve(value) for key, value in node.items()}

    return resolve(schema)


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Request body of a handler that reads its JSON itself."""
    content = {"application/json": {"schema": inline_schema(model)}}
    return {"requestBody": {"required": True, "content": content}}
