"""Runs an OpenVINO graph in parts, so that a model's weights are never in memory twice in full.

A compiled graph keeps its own copy of the weights in another order. Parts with a limited size of weights are compiled
one after the other and freed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.backends.openvino.imports import imported

PART_BYTES = 1 << 28
"""Maximum bytes of weights per part; a larger single weight is a part of its own."""

_CONFIG = {"INFERENCE_PRECISION_HINT": "f32"}


def run(
    graph: Any, passes: Sequence[Mapping[str, NDArray[Any]]], part_bytes: int = PART_BYTES
) -> list[dict[str, NDArray[Any]]]:
    """Outputs by name of the graph for each pass of inputs by name. The graph is left unchanged."""
    values: list[dict[Any, NDArray[Any]]] = [
        {_key(port.get_node().output(0)): given[port.get_any_name()] for port in graph.inputs} for given in passes
    ]
    for part in _parts(graph, part_bytes):
        _run_part(part, values)
    return [
        {port.get_any_name(): value[_key(port.get_node().input_value(0))] for port in graph.outputs} for value in values
    ]


def _key(output: Any) -> tuple[str, int]:
    return output.get_node().get_name(), output.get_index()


def _parts(graph: Any, part_bytes: int) -> Iterator[list[Any]]:
    """Operations that depend on the inputs, in execution order; constants belong to their readers."""
    depends: set[str] = {parameter.get_name() for parameter in graph.get_parameters()}
    part: list[Any] = []
    constants: dict[str, int] = {}
    for op in graph.get_ordered_ops():
        kind = op.get_type_name()
        if kind in ("Parameter", "Result"):
            continue
        sources = [source.get_node() for source in op.input_values()]
        if not any(source.get_name() in depends for source in sources):
            continue
        depends.add(op.get_name())
        own: dict[str, int] = {}
        for source in sources:
            if source.get_name() not in depends:
                own |= _constants(source)
        if part and sum((constants | own).values()) > part_bytes:
            yield part
            part, constants = [], {}
        part.append(op)
        constants |= own
    yield part


def _constants(node: Any) -> dict[str, int]:
    """Bytes of the constants below a node that depends on no input, by name."""
    if node.get_type_name() == "Constant":
        return {node.get_name(): node.get_byte_size()}
    return {name: size for source in node.input_values() for name, size in _constants(source.get_node()).items()}


def _run_part(part: Sequence[Any], values: list[dict[Any, NDArray[Any]]]) -> None:
    """Add the outputs that the rest of the graph needs. Nothing is freed, since a pass is short."""
    ov, ops = imported("openvino"), imported("openvino.opset13")
    own = {op.get_name() for op in part}
    parameters: dict[tuple[str, int], Any] = {}
    outputs: dict[tuple[str, int], Any] = {}
    replaced: list[tuple[Any, Any]] = []
    for op in part:
        for port in op.inputs():
            source = port.get_source_output()
            key = _key(source)
            if key in values[0] and key[0] not in own:
                if key not in parameters:
                    parameters[key] = ops.parameter(source.get_partial_shape(), source.get_element_type())
                replaced.append((port, source))
        for output in op.outputs():
            if any(port.get_node().get_name() not in own for port in output.get_target_inputs()):
                outputs[_key(output)] = output
    try:
        for port, source in replaced:
            port.replace_source_output(parameters[_key(source)].output(0))
        model = ov.Model([ops.result(output) for output in outputs.values()], list(parameters.values()))
        request = ov.Core().compile_model(model, "CPU", _CONFIG).create_infer_request()
        for value in values:
            for index, key in enumerate(parameters):
                request.set_input_tensor(index, ov.Tensor(np.ascontiguousarray(value[key])))
            request.infer()
            for index, key in enumerate(outputs):
                value[key] = request.get_output_tensor(index).data.copy()
    finally:
        for port, source in replaced:
            port.replace_source_output(source)
