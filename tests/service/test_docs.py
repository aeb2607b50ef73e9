"""``/docs``: every endpoint and field of the OpenAPI document, on a page that loads nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from tests.service.asking import Service
from winspect.service.http import docs


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    service.close()


class Read(HTMLParser):
    """Words, tags, ids and links of a page; a tag that is closed out of turn is an error."""

    def __init__(self, text):
        super().__init__()
        self.words, self.tags, self.ids, self.links, self.open = "", [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        values = dict(attrs)
        assert not [name for name in values if name.startswith("on") or name in ("src", "style")]
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if "href" in values else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def test_every_endpoint_field_and_schema_is_on_the_page(service):
    document = service.get("/openapi.json").json()
    answer = service.get("/docs")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    page = Read(answer.text)
    count = 0
    for path, item in document["paths"].items():
        for method, operation in item.items():
            count += 1
            assert page.words.count(f"{method.upper()} {path}") >= 2  # in the list, and above its fields
            for each in operation.get("parameters", ()):
                assert each["name"] in page.words
    assert count >= 20
    for name, schema in document["components"]["schemas"].items():
        assert page.ids.count(name) == 1
        for field, each in schema.get("properties", {}).items():
            assert field in page.words
            assert each.get("description", "").replace("`", "") in page.words
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert [link for link in page.links if not link.startswith("#")] == ["/openapi.json"]


def test_it_loads_nothing_and_runs_nothing(service):
    answer = service.get("/docs")
    assert not {"script", "link", "img", "iframe", "form"} & set(Read(answer.text).tags)
    policy = answer.headers["content-security-policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ") and f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_it_is_open_where_keys_are_set_and_gone_without_the_page(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef0123\n")
    locked = Service(tmp_path, api_key_file=keys)
    assert locked.get("/docs").status_code == 200 and locked.get("/openapi.json").status_code == 401
    locked.close()
    bare = Service(tmp_path, page=False)
    assert bare.get("/docs").status_code == 404
    bare.close()


def test_texts_are_texts_whatever_they_hold():
    evil = "<script>alert(1)</script>\"'&"
    schema = {"properties": {evil: {"type": evil, "default": evil, "description": evil}}, "description": evil}
    operation = {"summary": evil, "tags": [evil], "responses": {"200": {"description": evil}}}
    document = {
        "info": {"title": evil, "description": evil},
        "paths": {f"/{evil}": {"get": operation}},
        "components": {"schemas": {evil: schema}},
    }
    page = Read(docs.page(document))
    assert "script" not in page.tags and page.words.count("<script>alert(1)</script>") >= 8


def test_types_in_words():
    assert docs._type({"type": "array", "items": {"type": "integer"}}) == "list of integer"
    assert docs._type({"anyOf": [{"type": "number"}, {"type": "null"}]}) == "number or null"
    assert docs._type({"enum": ["a", "b"]}) == "<code>&quot;a&quot;</code> or <code>&quot;b&quot;</code>"
    assert docs._type({"$ref": "#/components/schemas/Row"}) == '<a href="#Row">Row</a>'
    assert docs._type({}) == ""
