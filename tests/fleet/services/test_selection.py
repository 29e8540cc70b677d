"""Label selectors in the database choose what they choose in Python."""

import time
from typing import Any

from sqlalchemy import select

from fleet.db import tables
from fleet.rollouts.selector import parse_selector
from fleet.services import devices
from fleet.services.selection import chosen

columns = tables.Device.__table__.columns
LABELS: dict[str, dict[str, str]] = {
    "a": {},
    "b": {"site": "north"},
    "c": {"site": "south", "line": "3"},
    "d": {"site": "north", "line": "12", "retired": ""},
    "e": {"line": "x3"},
    "f": {"line": "-7", "site": ""},
    "g": {"line": "1234567890123456789"},
    "h": {"example.com/tier": "edge"},
}
SELECTORS = [
    "",
    "site=north",
    "site!=north",
    "site=",
    "site in (north, south)",
    "site notin (north),!retired",
    "line>2",
    "line<3",
    "line>-8,line<4",
    "retired",
    "!retired,site",
    "example.com/tier=edge",
]


def device(name: str) -> tables.Device:
    """A row of nothing: every column empty, zero or null."""
    empty = {c.name: None if c.nullable else c.type.python_type() for c in columns}
    return tables.Device(**{**empty, "id": name, "configuration": "{}", "sources": "{}"})


def test_the_database_chooses_what_python_chooses(services: Any) -> None:
    with services.database.write() as session:
        session.add_all(device(name) for name in LABELS)
        session.flush()
        session.add_all(
            tables.DeviceLabel(device=name, key=key, value=value)
            for name, labels in LABELS.items()
            for key, value in labels.items()
        )
        for selector in map(parse_selector, SELECTORS):
            found = set(session.scalars(select(tables.Device.id).where(chosen(selector))))
            assert found == {n for n, labels in LABELS.items() if selector.matches(labels)}, (
                selector.text
            )


def test_ten_thousand_devices_are_chosen_from_in_pages(services: Any) -> None:
    with services.database.write() as session:
        session.add_all(device(f"cam-{n:05}") for n in range(10_000))
        session.flush()
        session.add_all(
            tables.DeviceLabel(device=f"cam-{n:05}", key="site", value=f"s{n % 100}")
            for n in range(10_000)
        )
    began = time.perf_counter()
    page = devices.list_devices(services, selector="site=s7", limit=60)
    rest = devices.list_devices(services, selector="site=s7", after=page["next"] or "", limit=60)
    names = [d["device"] for d in (*page["items"], *rest["items"])]
    assert names == [f"cam-{n:05}" for n in range(7, 10_000, 100)]
    print(f"two pages of 10,000 devices: {1000 * (time.perf_counter() - began):.1f} ms")  # noqa: T201
