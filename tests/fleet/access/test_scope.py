"""Scopes: in SQL they mean what selectors mean, and putting two together never widens."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from fleet.access.scope import EVERYTHING, both, confine, confined, within
from fleet.db import Database, tables, upgrade
from fleet.db.database import sqlite_url
from fleet.rollouts.selector import parse_selector
from fleet.services.enrollment import new_device

KEYS, VALUES = ("site", "line", "a.b/c"), ("north", "south", "x_y", "3")
labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
requirement = st.one_of(
    st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from(VALUES)),
    st.builds("{}!={}".format, st.sampled_from(KEYS), st.sampled_from(VALUES)),
    st.builds(
        lambda key, operator, values: f"{key} {operator} ({','.join(values)})",
        st.sampled_from(KEYS),
        st.sampled_from(("in", "notin")),
        st.lists(st.sampled_from(VALUES), min_size=1, max_size=3),
    ),
    st.sampled_from(KEYS),
    st.builds("!{}".format, st.sampled_from(KEYS)),
)
selector = st.lists(requirement, max_size=3).map(",".join)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    made = Database(sqlite_url(tmp_path_factory.mktemp("scope") / "fleet.db"))
    upgrade(made)
    with made.write() as session:
        session.add_all(new_device(name) for name in ("one", "two"))
    yield made
    made.close()


@settings(deadline=None, max_examples=60)
@given(labels, labels, selector)
def test_sql_and_python_choose_the_same_devices(
    database: Database, one: dict[str, str], two: dict[str, str], text: str
) -> None:
    given_labels = {"one": one, "two": two}
    scope = parse_selector(text)
    with database.write() as session:
        session.execute(delete(tables.DeviceLabel))
        session.add_all(
            tables.DeviceLabel(device=device, key=key, value=value)
            for device, found in given_labels.items()
            for key, value in found.items()
        )
        session.flush()
        chosen = set(
            session.scalars(select(tables.Device.id).where(within(tables.Device.id, scope)))
        )
    assert chosen == {device for device, found in given_labels.items() if scope.matches(found)}


@given(selector, selector, labels)
def test_both_choose_what_each_chooses(one: str, other: str, found: dict[str, str]) -> None:
    joined = both(parse_selector(one), parse_selector(other))
    expected = parse_selector(one).matches(found) and parse_selector(other).matches(found)
    assert joined.matches(found) == expected
    assert parse_selector(joined.text).matches(found) == expected


@given(selector, selector, labels)
def test_a_confined_selector_chooses_nothing_outside(
    text: str, scope: str, found: dict[str, str]
) -> None:
    narrowed = confine(text, parse_selector(scope))
    expected = parse_selector(text).matches(found) and parse_selector(scope).matches(found)
    assert parse_selector(narrowed).matches(found) == expected
    assert confine(narrowed, parse_selector(scope)) == narrowed


def test_everything_confines_nothing() -> None:
    assert confine("site=north", EVERYTHING) == "site=north"
    assert str(confined(tables.Rollout.id, EVERYTHING)) == "true"
