"""Text of others, fitted to the columns that hold it, and the keys of pages."""

from edgeml.errors import UserError


def fit(text: str, limit: int) -> str:
    """A text cut to a column's length, without NUL, which PostgreSQL does not hold.

    >>> fit("abc", 2)
    'ab'
    """
    return text.replace("\0", "")[:limit]


def moment(key: str) -> tuple[float, str]:
    """The time and the name in the key of a page that is ordered by both.

    >>> moment("1700000000.5 cam-1")
    (1700000000.5, 'cam-1')

    Raises:
        UserError: it is none.
    """
    at, space, name = key.partition(" ")
    try:
        if space:
            return float(at), name
    except ValueError:
        pass
    raise UserError("The cursor cannot be used.", fix="Begin without `after`.")
