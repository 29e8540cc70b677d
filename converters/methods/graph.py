"""Small questions about an `onnx.GraphProto` that several methods ask."""

from typing import Any

import onnx


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes by name."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def constants(graph: Any) -> dict[str, Any]:
    """The initializers by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def producers(graph: Any) -> dict[str, Any]:
    """For each tensor the node that makes it."""
    return {name: node for node in graph.node for name in node.output if name}


def readers(graph: Any) -> dict[str, list[Any]]:
    """For each tensor the nodes that read it, in graph order; subgraphs are not looked into."""
    found: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            if name:
                found.setdefault(name, []).append(node)
    return found


def drop_unused_constants(graph: Any) -> None:
    """Take away the initializers that nothing reads, subgraphs included."""
    used = read_names(graph) | {o.name for o in graph.output}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)


def reads_integers(graph: Any) -> list[Any]:
    """The nodes that read an 8-bit constant of two dimensions or more."""
    integers = {
        t.name
        for t in graph.initializer
        if t.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8) and len(t.dims) > 1
    }
    return [node for node in graph.node if integers.intersection(node.input)]


def read_names(graph: Any) -> set[str]:
    """The tensors that nodes read, those in subgraphs and what these answer with included."""
    names = {name for node in graph.node for name in node.input}
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names |= read_names(inner) | {o.name for o in inner.output}
    return names
