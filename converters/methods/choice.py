"""What a recipe's rules choose in a model: one method, one set of parameters, some nodes."""

from collections.abc import Sequence

import msgspec

from converters.methods.prepare import Prepared
from converters.methods.refusal import NotQuantizableError
from converters.recipe import Method, Parameters, Rule, method_of


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The nodes, by name in graph order, that leave float32, and how."""

    method: Method
    parameters: Parameters
    nodes: tuple[str, ...]


def choose(prepared: Prepared, rules: Sequence[Rule]) -> Choice:
    """Apply the rules to every node.

    Raises:
        NotQuantizableError: they choose nothing, or more than one method or set of parameters.
    """
    decisions = {
        n.name: method_of(rules, name=n.name, operator=n.op_type) for n in prepared.proto.graph.node
    }
    chosen = {n: rule for n, rule in decisions.items() if rule.method is not Method.FLOAT32}
    if not chosen:
        raise NotQuantizableError(
            "The recipe quantizes nothing.",
            why="No node matches its rules.",
            fix="Rules name nodes as `edgeml inspect` shows them.",
        )
    methods = {rule.method for rule in chosen.values()}
    if len(methods) > 1:
        raise NotQuantizableError(
            f"The recipe mixes the methods {' and '.join(sorted(methods))}.",
            why="One model is quantized by one method; float32 may be mixed in.",
        )
    parameters = {rule.parameters for rule in chosen.values()}
    if len(parameters) > 1:
        raise NotQuantizableError(
            "The recipe mixes quantization parameters.",
            why="One model can have one set of types and ranges; float32 may be mixed in.",
        )
    return Choice(method=methods.pop(), parameters=parameters.pop(), nodes=tuple(chosen))


def refuse_types(
    parameters: Parameters, *, activations: Sequence[str], weights: Sequence[str]
) -> None:
    """Refuse types that a method does not have.

    Raises:
        NotQuantizableError: the sentence names them.
    """
    for what, wanted, known in (
        ("activations", parameters.activation, activations),
        ("weights", parameters.weight, weights),
    ):
        if wanted not in known:
            raise NotQuantizableError(
                f"The recipe asks for {what} in {wanted}.", why=f"Known are {', '.join(known)}."
            )
