"""Joins linear layers that read the same input, so that the graph has one matrix product instead of two or three.

Every product quantises its input to int8 again and waits for all threads; small ones, such as those of keys and values,
do little work in between. The numbers do not change: each output is still its own sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unspool.backends import mapped

_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""transformers' names of layers in one module that are called on the same input."""


class _Joined(nn.Module):  # type: ignore[misc]
    """The layers as one. Keeps its output, since each of them is called in turn."""

    def __init__(self, layers: Sequence[nn.Linear], directory: Path) -> None:
        super().__init__()
        self.sizes = [layer.out_features for layer in layers]
        biased = any(layer.bias is not None for layer in layers)
        self.linear = nn.Linear(layers[0].in_features, sum(self.sizes), bias=biased, device="meta")
        self.linear.weight = nn.Parameter(mapped.joined([layer.weight for layer in layers], directory))
        if biased:
            zeros = [torch.zeros(size) for size in self.sizes]
            biases = [zero if layer.bias is None else layer.bias for layer, zero in zip(layers, zeros, strict=True)]
            self.linear.bias = nn.Parameter(torch.cat(biases))
        self.input: Any = None
        self.outputs: Sequence[Any] = ()

    def forward(self, inputs: Any) -> Sequence[Any]:
        if inputs is not self.input:
            self.input, self.outputs = inputs, self.linear(inputs).split(self.sizes, -1)
        return self.outputs


class _Part(nn.Module):  # type: ignore[misc]
    """Replaces one of the layers."""

    def __init__(self, joined: _Joined, index: int) -> None:
        super().__init__()
        self.joined, self.index = joined, index

    def forward(self, inputs: Any) -> Any:
        return self.joined(inputs)[self.index]


def join_projections(model: nn.Module, directory: Path) -> None:
    """Join all query, key and value layers, and the two input layers of gated MLPs, in place.

    One group at a time, replaced before the next is joined, so the weights are never in memory twice in full.

    Args:
        directory: for the files with the joined weights, see ``mapped``.
    """
    for module, names in [
        (module, names) for module in model.modules() for names in _TOGETHER if _apart(module, names)
    ]:
        joined = _Joined([getattr(module, name) for name in names], directory)
        for i, name in enumerate(names):
            setattr(module, name, _Part(joined, i))


def _apart(module: nn.Module, names: Sequence[str]) -> bool:
    return all(type(getattr(module, name, None)) is nn.Linear for name in names)
