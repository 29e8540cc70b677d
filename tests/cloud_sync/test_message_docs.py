"""The pages and the AsyncAPI document are those of the structs, and good by their own rules."""

import importlib.util
import json
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cloud_sync.messages import Down, RecordKind, Up
from tests.needs import module, npm_package

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"


@cache
def generator() -> ModuleType:
    path = REPOSITORY / "scripts" / "message_docs.py"
    spec = importlib.util.spec_from_file_location("message_docs", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["message_docs"] = found
    spec.loader.exec_module(found)
    return found


def document() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(generator().asyncapi())
    return made


def test_the_pages_are_current() -> None:
    pages = generator().pages()
    written = {path.name: path.read_text() for path in (DOCS / "messages").glob("*.md")}
    stale = [name for name in {*pages, *written} if pages.get(name) != written.get(name)]
    assert not stale, "run make docs"
    assert (DOCS / "asyncapi.json").read_text() == generator().asyncapi(), "run make docs"


def test_every_topic_and_every_kind_of_record_has_its_page() -> None:
    assert set(generator().CHANNELS) == {*Up, *Down}
    assert len(generator().IN_RECORDS) == len(RecordKind)


def test_every_link_of_the_pages_leads_somewhere() -> None:
    pages = generator().pages()
    for name, text in pages.items():
        headings = {line.lstrip("# ").lower() for line in text.splitlines() if line[:1] == "#"}
        for target in re.findall(r"\]\(([^)]+)\)", text):
            page, _, anchor = target.partition("#")
            if page.startswith("../"):
                assert (DOCS / "messages" / page).exists(), (name, target)
                continue
            assert not page or page in pages, (name, target)
            assert page or anchor in headings, (name, target)


def test_the_document_is_asyncapi_3_by_the_official_schema() -> None:
    folder = npm_package("@asyncapi/specs", "6.11.1")
    schema = json.loads((folder / "schemas" / "3.0.0-without-$id.json").read_text())
    validator = module("jsonschema").Draft7Validator(schema)
    assert [error.message for error in validator.iter_errors(document())] == []
    broken = document() | {"operations": {"x": {"action": "shout"}}}
    assert list(validator.iter_errors(broken)), "a validator that finds nothing proves nothing"


def test_every_reference_of_the_document_leads_somewhere() -> None:
    made = document()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(reference := value.get("$ref"), str):
                found: Any = made
                for part in reference.removeprefix("#/").split("/"):
                    found = found[part]
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk(made)


@pytest.mark.parametrize("name", ["DesiredState", "Batch", "Command", "CommandResult"])
def test_the_schemas_say_what_the_decoder_says(name: str) -> None:
    schemas = document()["components"]["schemas"]
    schema = {**schemas[name], "components": {"schemas": schemas}}
    validator = module("jsonschema").Draft7Validator(schema)
    assert not validator.is_valid({})
    assert not validator.is_valid({"device": "x" * 65})
