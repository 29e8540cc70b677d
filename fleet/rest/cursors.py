"""Pages whose cursors say nothing to clients: the key of the last item, and of which list it is.

A cursor names where the page before ended and not how many came before it, so that what is
inserted meanwhile neither repeats an item nor leaves one out.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar

from fastapi import Query

from edgeml.errors import UserError
from fleet.resources import Page

T = TypeVar("T")
K = TypeVar("K", int, str)

_MAX_KEY = 2**62
_MAX_TEXT = 1024

After = Annotated[str, Query(max_length=_MAX_TEXT, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many items a page has at most.")]


def paged(what: str, after: str, page: Callable[[K], Page[T]], kind: type[K]) -> Page[T]:
    """A page of a list whose service takes and gives bare keys.

    Args:
        what: which list; a cursor of another one is refused.
        after: the client's cursor; empty for the first page.
        page: the items after a key; 0 or empty for the first ones.
        kind: what the key is.

    Raises:
        UserError: the cursor is none of this list's.
    """
    found = page(decode(what, after, kind) if after else kind())
    following = found["next"]
    return {"items": found["items"], "next": encode(what, following) if following else None}


def encode(what: str, key: str | int) -> str:
    """The cursor of a key.

    >>> decode("devices", encode("devices", "cam-1"), str)
    'cam-1'
    """
    text = json.dumps([what, str(key)], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(what: str, cursor: str, kind: type[K]) -> K:
    """The key of a cursor.

    Raises:
        UserError: it is none of this list's.
    """
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError):
        found = None
    if isinstance(found, list) and len(found) == 2 and found[0] == what:  # noqa: PLR2004
        text = found[1]
        if isinstance(text, str) and "\0" not in text and text.isprintable():
            if kind is str:
                return kind(text)
            if text.isascii() and text.isdigit() and int(text[:20]) <= _MAX_KEY:
                return kind(text)
    raise UserError(
        "The cursor cannot be used.",
        why=f"It is none that a page of {what} gave.",
        fix="Take `next` of the page before, or begin without `after`.",
    )


def sliced(
    items: Iterable[T], key: Callable[[T], str], after: str, limit: int, *, newest: bool = False
) -> Page[T]:
    """A page of a list that is short enough to be had whole, in the order of its keys.

    >>> sliced(["b", "a", "c"], str, "a", 1)
    {'items': ['b'], 'next': 'b'}
    """
    ordered = sorted(items, key=key, reverse=newest)
    rest = [i for i in ordered if not after or (key(i) < after if newest else key(i) > after)]
    return {"items": rest[:limit], "next": key(rest[limit - 1]) if len(rest) > limit else None}
