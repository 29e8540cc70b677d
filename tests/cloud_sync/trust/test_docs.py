"""The table of attacks in the docs and the tests that make them are one list."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SECOND = "### On what the fleet says"
ATTACKS = Path(__file__).with_name("test_attacks.py")


def test_every_attack_of_the_table_has_its_test_and_every_test_its_line() -> None:
    page = (ROOT / "docs" / "trust.md").read_text().partition(SECOND)[0]
    named = re.findall(r"^\| .* \| `(test_\w+)` \|", page, re.MULTILINE)
    assert len(named) == len(set(named)) > 20
    tree = ast.parse(ATTACKS.read_text())
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    attacks = {name for name in tests if name.startswith("test_")}
    assert set(named) == attacks - {"test_a_signed_release_is_taken"}


def test_every_test_that_the_second_table_names_is_there() -> None:
    page = (ROOT / "docs" / "trust.md").read_text().partition(SECOND)[2]
    named = set(re.findall(r"`(test_\w+)`", page))
    known = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert len(named) > 20
    assert named <= known
