"""The page of the HTTP API, from the service's own OpenAPI document: no script, nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_HEAD = """# HTTP API

Every endpoint of `winspect serve`, from its OpenAPI {version} document ([openapi.json](openapi.json), which a running
service gives at `/openapi.json`). How to start it, keys, TLS, limits and worked requests: [Service](deploy.md). Errors
under `/v1` are `{{"error": {{"type", "message"}}}}`, under `/v2` `{{"error": "message"}}`.
"""
_TITLES = {"predict": "Inspect", "v2": "Open Inference Protocol"}


def document() -> dict[str, Any]:
    """The OpenAPI document of a service with the usual settings."""
    from winspect.service.http.app import create_app
    from winspect.service.settings import ServiceSettings

    off = {"feedback": None, "drift": None, "deliverer": None}
    backend: Any = SimpleNamespace(batcher=SimpleNamespace(on_batch=None), status=SimpleNamespace(state="ready"), **off)
    return create_app(backend, ServiceSettings(Path("data"))).openapi()


def pages() -> dict[str, str]:
    """The page, and the document beside it."""
    made = document()
    return {"api.md": "\n".join(_page(made)), "openapi.json": json.dumps(made, indent=1)}


def _page(made: dict[str, Any]) -> Iterator[str]:
    yield _HEAD.format(version=made["openapi"])
    groups: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, operations in made["paths"].items():
        for verb, operation in operations.items():
            groups.setdefault((operation.get("tags") or ["other"])[0], []).append((verb.upper(), path, operation))
    for group, operations in groups.items():
        yield f"## {_TITLES.get(group, group.capitalize())}\n"
        for verb, path, operation in operations:
            yield from _operation(made, verb, path, operation)
    yield "## Schemas\n"
    for name, schema in sorted(made["components"]["schemas"].items()):
        yield f"### {name}\n"
        yield from _fields(schema)


def _operation(made: dict[str, Any], verb: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### {verb} `{path}`\n\n{operation.get('summary', '')}\n"
    if text := operation.get("description"):
        yield f"{text}\n"
    if parameters := operation.get("parameters"):
        yield "| parameter | in | type | |\n|---|---|---|---|"
        for entry in parameters:
            name = f"`{entry['name']}`" + (" (required)" if entry.get("required") else "")
            yield f"| {name} | {entry['in']} | {_kind(entry['schema'])} | {_cell(entry.get('description', ''))} |"
        yield ""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"Body, `{kind}`: {_kind(content['schema'])}\n"
    yield "| status | | answer |\n|---|---|---|"
    for status, answer in sorted(operation["responses"].items()):
        kinds = [_kind(found["schema"]) if found.get("schema") else f"`{kind}`" for kind, found in _contents(answer)]
        yield f"| {status} | {_cell(answer.get('description', ''))} | {', '.join(dict.fromkeys(kinds))} |"
    yield ""


def _contents(answer: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(answer.get("content", {}).items())


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    if text := schema.get("description"):
        yield f"{text}\n"
    if not schema.get("properties"):
        yield f"{_kind(schema)}\n"
        return
    yield "| field | type | |\n|---|---|---|"
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        default = f" Default: `{json.dumps(field['default'])}`." if field.get("default") is not None else ""
        mark = " (required)" if name in required else ""
        yield f"| `{name}`{mark} | {_kind(field)} | {_cell(field.get('description', ''))}{default} |"
    yield ""


def _kind(schema: dict[str, Any]) -> str:
    """A type in words; a link where it is a schema of its own."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if parts := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " or ".join(dict.fromkeys(_kind(part) for part in parts))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return {"null": "null", None: "any"}.get(schema.get("type"), f"{schema.get('type')}")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
