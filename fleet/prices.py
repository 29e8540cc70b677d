"""What a megabyte costs which devices: a TOML file that an operator writes. Pure.

    currency = "EUR"

    [[prices]]                   # the first that chooses a device counts
    selector = "link=lte"
    per_mb = 0.02                # a megabyte is 1,000,000 bytes

    [[prices]]                   # without a selector: all others
    per_mb = 0

A device that no price chooses has none: its bytes are counted, its money is unknown.
"""

import math
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from edgeml.errors import UserError
from fleet.rollouts.selector import Selector, parse_selector

MEGABYTE = 1_000_000
_WHAT = "The prices cannot be used."


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a megabyte costs the devices that a selector chooses; all of them by default."""

    per_mb: Annotated[float, Meta(ge=0, le=1e6)]
    selector: Annotated[str, Meta(max_length=1000)] = ""


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See the module.

    >>> Prices(prices=(Price(per_mb=0.5, selector="link=lte"),)).money(2_000_000, {"link": "lte"})
    1.0
    """

    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "EUR"
    prices: Annotated[tuple[Price, ...], Meta(max_length=100)] = ()

    def money(self, number: int, labels: Mapping[str, str]) -> float | None:
        """What so many bytes cost a device with these labels; None where nobody knows."""
        for price in self.prices:
            if _selector(price.selector).matches(labels):
                return number / MEGABYTE * price.per_mb
        return None


def parse_prices(text: str) -> Prices:
    """Parse the TOML of prices.

    Raises:
        UserError: it is not TOML, or a key or value is wrong.
    """
    try:
        return check_prices(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(_WHAT, why=f"It is not valid TOML: {error}.") from None


def check_prices(found: Mapping[str, object]) -> Prices:
    """Check prices that came as JSON or TOML.

    Raises:
        UserError: a key or value is wrong.
    """
    try:
        prices = msgspec.convert(dict(found), Prices)
    except (msgspec.ValidationError, OverflowError) as error:
        raise UserError(
            _WHAT, why=f"{error}.", fix='Write currency = "EUR" and [[prices]] with per_mb.'
        ) from None
    for price in prices.prices:
        parse_selector(price.selector)
        if not math.isfinite(price.per_mb):
            raise UserError(_WHAT, why="A per_mb is not finite.")
    return prices


@lru_cache(maxsize=256)
def _selector(text: str) -> Selector:
    return parse_selector(text)
