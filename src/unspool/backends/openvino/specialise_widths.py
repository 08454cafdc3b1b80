"""Gives some widths their own copy of the graph's body, so that changing the width is free (shape specialisation).

OpenVINO prepares every node of a graph for its input shapes, and again whenever they change: about eight microseconds
per node, a third of a narrow pass. Copies in branches of one graph keep what was prepared for them and share the
weights, which are most of a model. A branch copies its inputs, the cache included. So after long texts, where copies
are large and a width change is a small part of a pass, all widths take one branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unspool.backends.openvino.imports import imported

_JOINED = ("hidden", "new_keys", "new_values")
_AXES = (0, 2, 2)  # along which they have an entry a node

SLOTS = 1024
"""A cache with at least this many slots takes the branch for all widths."""


def separate(graph: Any, widths: Sequence[int], states: int = 0) -> None:
    """Change a graph of ``openvino_convert`` in place: a branch for each of ``widths``, and one for all others.

    The output layer stays outside, as one node: its result is too large to copy.

    Args:
        states: number of further outputs at the end, [1, nodes, size], see ``layers.expose``.
    """
    op = imported("openvino.opset13")

    # What is above the selection of rows is the head, which stays; the body ends where the rows are selected.
    selection = _output(graph, "hidden").get_node().input_value(0).get_node()
    inputs = {_name(parameter): parameter for parameter in graph.get_parameters()}
    nodes = op.gather(op.shape_of(inputs["ids"]), op.constant(np.int64(1)), op.constant(np.int64(0)))
    slots = op.gather(op.shape_of(inputs["past_keys"]), op.constant(np.int64(2)), op.constant(np.int64(0)))
    short = op.less(slots, op.constant(np.int64(SLOTS)))
    chosen = [op.logical_and(op.equal(nodes, op.constant(np.int64(width))), short) for width in widths]
    others = chosen[0]
    for condition in chosen[1:]:
        others = op.logical_or(others, condition)
    axes = (*_AXES, *[1] * states)
    parts = [_branch(graph, inputs, condition, axes) for condition in (*chosen, op.logical_not(others))]
    readers = [selection, *(_output(graph, name).get_node() for name in _JOINED[1:]), *_last(graph, states)]
    for reader, axis, part in zip(readers, axes, zip(*parts, strict=True), strict=True):
        reader.input(0).replace_source_output(op.concat(list(part), axis).output(0))
    graph.validate_nodes_and_infer_types()


def _branch(graph: Any, inputs: dict[str, Any], condition: Any, axes: Sequence[int]) -> list[Any]:
    """Outputs of a copy of the body that runs under a condition; empty where it does not hold."""
    ov = imported("openvino")
    op = imported("openvino.opset13")

    copy = graph.clone()
    results = [*(_output(copy, name).get_node() for name in _JOINED), *_last(copy, len(axes) - len(_JOINED))]
    ends = [result.input_value(0) for result in results]
    ends[0] = ends[0].get_node().input_value(0)
    used = [parameter for parameter in copy.get_parameters() if _name(parameter) != "rows"]
    body = ov.Model([op.result(end) for end in ends], used)
    nothing = ov.Model([op.result(_empty(end, axis)) for end, axis in zip(ends, axes, strict=True)], [])
    branch = op.if_op(condition.output(0))
    branch.set_then_body(body)
    branch.set_else_body(nothing)
    for parameter in used:
        branch.set_input(inputs[_name(parameter)].output(0), parameter, None)
    return [branch.set_output(*pair) for pair in zip(body.get_results(), nothing.get_results(), strict=True)]


def _empty(output: Any, axis: int) -> Any:
    op = imported("openvino.opset13")

    shape = [0 if i == axis else size.get_length() for i, size in enumerate(output.partial_shape)]
    return op.constant(np.zeros(shape, np.float32))


def _last(graph: Any, count: int) -> list[Any]:
    """Result nodes of the last outputs."""
    return [output.get_node() for output in graph.outputs[len(graph.outputs) - count :]]


def _output(graph: Any, name: str) -> Any:
    return next(output for output in graph.outputs if name in output.get_names())


def _name(parameter: Any) -> str:
    return str(next(iter(parameter.output(0).get_names())))
