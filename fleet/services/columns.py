"""Text of others, fitted to the columns that hold it."""


def fit(text: str, limit: int) -> str:
    """A text cut to a column's length, without NUL, which PostgreSQL does not hold.

    >>> fit("abc", 2)
    'ab'
    """
    return text.replace("\0", "")[:limit]
