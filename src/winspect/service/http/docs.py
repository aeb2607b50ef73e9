"""The page ``/docs``: the OpenAPI document as people read it. No script, and nothing comes from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, Response  # here, because FastAPI looks annotations up in the module

if TYPE_CHECKING:
    from fastapi import FastAPI

PATH = "/docs"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2430; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { border-top: 2px solid #1c2430; padding-top: .6rem; margin-top: 2.4rem; }
h3 { font: 600 1.05rem/1.4 ui-monospace, monospace; margin: 1.8rem 0 .2rem; overflow-wrap: anywhere; }
b.method { display: inline-block; min-width: 4.2rem; color: #174f86; }
table { border-collapse: collapse; width: 100%; margin: .4rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #dde2e8; }
td { overflow-wrap: break-word; }
th { color: #5b6675; font-weight: 400; } code { font: .93em ui-monospace, monospace; } p { margin: .3rem 0; }
nav { columns: 2; } a { color: #174f86; } .soft { color: #5b6675; }
@media (max-width: 600px) { nav { columns: 1; } tr { display: block; border-bottom: 1px solid #dde2e8; }
  td { display: block; border: 0; padding: 0; } }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; "
    f"style-src 'sha256-{_HASH}'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_METHODS = ("get", "post", "put", "delete")


def add_docs(app: FastAPI) -> None:
    """Serve the page. It says the same of every service, so that it needs no key."""

    @app.get(PATH, include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page(app.openapi()), headers=HEADERS)


def page(document: Mapping[str, Any]) -> str:
    """An OpenAPI document of version 3 as a page: every endpoint with its fields and answers, then the schemas."""
    title = escape(document["info"]["title"])
    body = "\n".join(_body(document))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{title}: API</title><style>{STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _body(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield f"<h1>{escape(info['title'])}: API</h1><p>{_text(info.get('description', ''))}</p>"
    yield '<p class="soft">For programs: <a href="/openapi.json">/openapi.json</a>. '
    yield "With API keys: <code>Authorization: Bearer KEY</code> or <code>X-API-Key: KEY</code>.</p><nav>"
    groups: dict[str, list[str]] = {}
    for number, (path, method, operation) in enumerate(_operations(document)):
        verb = f'<b class="method">{method.upper()}</b> '
        heading = f"{verb}{escape(path)}"
        yield f'<div><code>{verb}<a href="#o{number}">{escape(path)}</a></code></div>'
        lines = [f'<h3 id="o{number}">{heading}</h3>', *_operation(operation)]
        groups.setdefault(operation.get("tags", [""])[0], []).extend(lines)
    yield "</nav>"
    for tag, lines in groups.items():
        yield f"<h2>{escape(tag)}</h2>"
        yield from lines
    yield "<h2>Schemas</h2>"
    for name, schema in sorted(document.get("components", {}).get("schemas", {}).items()):
        yield f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{_text(schema.get("description", ""))}</p>'
        yield from _table(_properties(schema))


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, item in document["paths"].items():
        yield from ((path, method, item[method]) for method in _METHODS if method in item)


def _operation(operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<p>{_text(operation.get('summary', ''))}.</p>"
    parameters = operation.get("parameters", ())
    yield from _table(
        [
            (each["name"], f"{each['in']}, {_type(each['schema'])}", each.get("description", ""), each.get("required"))
            for each in parameters
        ]
    )
    content = operation.get("requestBody", {}).get("content", {})
    if content:
        schemas = dict.fromkeys(_type(each["schema"]) for each in content.values())
        yield f"<p>Body: {' or '.join(schemas)} as {', '.join(f'<code>{escape(kind)}</code>' for kind in content)}</p>"
    rows = []
    for status, answer in operation["responses"].items():
        kinds = answer.get("content", {})
        types = ", ".join(dict.fromkeys(_type(each.get("schema", {})) or escape(kind) for kind, each in kinds.items()))
        rows.append((status, types, answer.get("description", ""), False))
    yield from _table(rows)


def _properties(schema: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    required = schema.get("required", ())
    return [
        (name, _type(each) + _default(each), each.get("description", ""), name in required)
        for name, each in schema.get("properties", {}).items()
    ]


def _table(rows: list[Any]) -> Iterator[str]:
    """Rows of a name, a type (markup), a description and whether it must be given; nothing without rows."""
    if rows:
        yield "<table>"
        for name, kind, description, is_required in rows:
            mark = " <b>needed</b>" if is_required else ""
            first = f"<code>{escape(str(name))}</code>{mark}"
            yield f"<tr><td>{first}</td><td>{kind}</td><td>{_text(description)}</td></tr>"
        yield "</table>"


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, as markup; schemas with a name are links."""
    if reference := schema.get("$ref"):
        name = escape(reference.rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if several := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_type(each) for each in several)
    if words := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return " or ".join(f"<code>{escape(json.dumps(word))}</code>" for word in words)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {})) or 'anything'}"
    return escape(" ".join(str(schema[key]) for key in ("type", "format") if key in schema))


def _default(schema: Mapping[str, Any]) -> str:
    return f" = <code>{escape(json.dumps(schema['default']))}</code>" if schema.get("default") is not None else ""


def _text(text: str) -> str:
    """Text with its `words` as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
