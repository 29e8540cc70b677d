"""The commands `edgeml fleet prices show` and `set`."""

from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.connection import Why, read_text
from fleet.commands.session import Session, fleet_command

prices_app = typer.Typer(help="What a megabyte costs which devices.", no_args_is_help=True)


@fleet_command(prices_app, "show")
def show_prices(fleet: Session) -> None:
    """Show what a megabyte (1,000,000 bytes) costs which devices."""
    from fleet.show_configuration import prices_text

    found = fleet.client.prices()
    fleet.show(found, prices_text(found))


@fleet_command(prices_app, "set")
def set_prices(
    fleet: Session,
    file: Annotated[Path, typer.Argument(help="currency and [[prices]], a TOML file.")],
    *,
    why: Why = "",
) -> None:
    """Replace the prices: the first whose selector chooses a device counts.

        currency = "EUR"
        [[prices]]
        selector = "link=lte"
        per_mb = 0.02
        [[prices]]               # all others
        per_mb = 0

    Plans, rollouts and ledgers then say money beside bytes.
    """
    import msgspec

    from fleet.prices import parse_prices
    from fleet.show_configuration import prices_text

    wanted = msgspec.to_builtins(parse_prices(read_text(file)))
    found = fleet.client.set_prices(wanted, why)
    fleet.show(found, prices_text(found))
