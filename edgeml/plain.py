"""Text of others on somebody's terminal: what would steer the terminal is not sent to it."""

import re

# Control characters but for tab and newline, and what turns the direction of writing.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    r"""A text in which nothing moves the cursor, colours or turns what is around it.

    >>> plain("cam-1\x1b[2K is \rfine")
    'cam-1\ufffd[2K is \ufffdfine'
    """
    return _STEERING.sub("\ufffd", text)
