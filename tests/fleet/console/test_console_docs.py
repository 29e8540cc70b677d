"""What the console's page of the documentation names is there."""

import json
import re
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "console.md").read_text()


def test_every_route_that_the_page_names_is_one_of_the_api() -> None:
    known = json.loads((DOCS / "openapi.json").read_text())["paths"]
    named = re.findall(r"`(GET|POST|PUT) (/[^`?]*)`", PAGE.partition("## The numbers")[2])
    assert len(named) > 30
    missing = [
        f"{verb} {path}"
        for verb, path in named
        if verb.lower() not in known.get(f"/api/v1{path}", {})
    ]
    assert missing == []


def test_every_picture_is_there_and_small() -> None:
    pictures = re.findall(r"\]\((images/[^)]+)\)", PAGE)
    assert pictures
    for picture in pictures:
        assert (DOCS / picture).stat().st_size < 150_000
