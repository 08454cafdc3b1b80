"""Extra outputs of a converted graph: the inputs of layers. The stored graph has none, so unused ones cost nothing.

A traced graph names its nodes by the module that they come from, ``…model.layers.3.mlp/…``. The input of a layer is the
one tensor of the model's width that enters its module from outside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from unspool.backends.openvino.imports import imported
from unspool.errors import UnsupportedError

BLOCK_MAX = "peaks"
"""Name of a converted graph's output for the block maxima of the logits, see ``Scores``."""

_LAYER = re.compile(r"\.(\d+)(?=[./])")


def expose(graph: Any, layers: Sequence[int]) -> None:
    """Add outputs [1, nodes, hidden size] to a graph of ``openvino.convert``, in place, after its own, in this order.

    Raises:
        UnsupportedError: if the input of a layer is ambiguous.
    """
    op = imported("openvino.opset13")

    width = next(output for output in graph.outputs if "hidden" in output.get_names()).partial_shape[1]
    found: dict[int, dict[tuple[str, int], Any]] = {layer: {} for layer in layers}
    for node in graph.get_ordered_ops() if layers else ():
        layer = _layer(node)
        if layer not in found:
            continue
        for source in node.input_values():
            shape, before = source.get_partial_shape(), source.get_node()
            per_node = shape.rank.is_static and len(shape) == 3 and shape[1].is_dynamic and shape[2] == width
            if per_node and _layer(before) != layer:
                found[layer][before.get_friendly_name(), source.get_index()] = source
    for layer in layers:
        sources = found[layer]
        if len(sources) != 1:
            raise UnsupportedError(
                f"the input of layer {layer} is ambiguous in this graph ({len(sources)} tensors); "
                "try --backend transformers"
            )
        (source,) = sources.values()
        graph.add_results([op.result(source)])


def _layer(node: Any) -> int | None:
    match = _LAYER.search(node.get_friendly_name())
    return int(match[1]) if match else None
