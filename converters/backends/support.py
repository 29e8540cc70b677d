"""What a target runs, as a table of constraints, checked before any toolchain starts.

A constraint is a function of a node whose docstring is the message, and a line of the generated
page `docs/targets/TARGET.md` (the idea is Vela's):

    def stride(node: Node) -> str | None:
        \"\"\"Strides lie between 1 and 3.\"\"\"
        return None if max(node.strides) <= 3 else f"strides {node.strides}"

It returns None where the node keeps it, else what the node has. By operator, a table names the
constraints of each; an operator that is no key does not run there, and those under `*` hold of all.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence

import msgspec

from converters.backends.graph import Node

Constraint = Callable[[Node], str | None]
EVERY = "*"


class Unsupported(msgspec.Struct, frozen=True, kw_only=True):
    """A node that the accelerator will not run, and why: it falls back to the CPU."""

    node: str
    operator: str
    reason: str
    macs: int = 0

    def __str__(self) -> str:
        return f"{self.node} ({self.operator}): {self.reason}"


def unsupported(
    table: Mapping[str, Sequence[Constraint]], nodes: Sequence[Node]
) -> tuple[Unsupported, ...]:
    """Every node that breaks a constraint, with all that it breaks, in the graph's order.

    Args:
        table: by operator its constraints.
        nodes: of the float model.
    """
    return tuple(
        Unsupported(node=node.name, operator=node.operator, reason=reason, macs=node.macs)
        for node in nodes
        if (reason := _broken(table, node))
    )


def message(constraint: Constraint) -> str:
    """What a constraint asks for: its docstring in one line."""
    return " ".join((inspect.getdoc(constraint) or constraint.__name__).split())


def _broken(table: Mapping[str, Sequence[Constraint]], node: Node) -> str:
    if node.operator not in table:
        return "this operator is not among those that it runs."
    broken = [
        f"{message(constraint)} It has {said}."
        for constraint in (*table.get(EVERY, ()), *table[node.operator])
        if (said := constraint(node)) is not None
    ]
    return " ".join(broken)
