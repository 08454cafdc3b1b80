"""Keys and values of the torch backend. Every sequence owns its entries; a pass over several sequences joins them.

A pass has one block of slots per row: the row's committed tokens from slot 0 on, a gap up to the longest row, then the
nodes of the trees. Attention does not depend on a key's slot: the position is in the key itself, and the mask says
which slots a node may see. So rows that accept different numbers of tokens need no shifting; each appends its accepted
entries to its own. Only the gap is filled, because masked entries must still be numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from unspool.backends.openvino.rotary import turn

_SPARE = 64
"""Minimum number of spare slots when entries grow."""

Entries = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer and one sequence, each [heads, slots, size]."""


class RowCache:
    """Keys and values of one sequence.

    Attributes:
        length: number of committed tokens, whose entries are kept.
        new: by layer, the entries of the last scored nodes; emptied when some of them are appended.
    """

    def __init__(self) -> None:
        self.length = 0
        self.new: dict[int, Entries] = {}
        self._kept: dict[int, Entries] = {}  # with spare room beyond ``length``

    def kept(self, layer: int) -> Entries | None:
        """Entries of the committed tokens, as views; None if there are none."""
        if not self.length:
            return None
        keys, values = self._kept[layer]
        return keys[:, : self.length], values[:, : self.length]

    def append(self, nodes: Sequence[int]) -> None:
        """Append the new entries of these nodes to the committed ones, and discard the other new ones."""
        picked: dict[int, Entries] = {}
        for layer, (keys, values) in self.new.items():
            index = torch.tensor(nodes, device=keys.device)
            picked[layer] = keys.index_select(1, index), values.index_select(1, index)
        self._extend(picked, len(nodes))

    def splice(self, source: RowCache, start: int, stop: int, angles: Sequence[torch.Tensor] | None) -> None:
        """Append entries of another sequence to the committed ones, and discard the new ones.

        Args:
            angles: rotation of their keys: by layer, [pairs]; None: no rotation.
        """
        moved: dict[int, Entries] = {}
        for angle, layer in zip(angles or [None] * len(source._kept), sorted(source._kept), strict=True):
            keys, values = (entries[:, start:stop] for entries in source._kept[layer])
            if angle is not None:
                keys = keys.clone()
                turn(keys, angle.cos(), angle.sin())
            moved[layer] = keys, values
        self._extend(moved, stop - start)

    def _extend(self, entries: dict[int, Entries], count: int) -> None:
        end = self.length + count
        for layer, (keys, values) in entries.items():
            kept = self._kept.get(layer, (keys[:, :0], values[:, :0]))
            roomy = _roomy(kept[0], self.length, end), _roomy(kept[1], self.length, end)
            roomy[0][:, self.length : end] = keys
            roomy[1][:, self.length : end] = values
            self._kept[layer] = roomy
        self.length = end
        self.new = {}

    def copy(self) -> RowCache:
        """An independent copy of the committed entries."""
        twin = RowCache()
        twin.length = self.length
        for layer in self._kept if self.length else ():
            keys, values = self._kept[layer]
            twin._kept[layer] = keys[:, : self.length].clone(), values[:, : self.length].clone()
        return twin


def _roomy(entries: torch.Tensor, length: int, needed: int) -> torch.Tensor:
    """``entries`` with at least ``needed`` slots; grown by a quarter, so that growing is rare."""
    heads, slots, size = entries.shape
    if slots >= needed:
        return entries
    grown = entries.new_empty((heads, max(needed + _SPARE, slots + slots // 4), size))
    grown[:, :length] = entries[:, :length]
    return grown


class PassCache(DynamicCache):  # type: ignore[misc]
    """The cache that a model receives for one pass over several sequences."""

    def __init__(self, rows: Sequence[RowCache]) -> None:
        super().__init__()
        self._rows = rows
        self._width = max(row.length for row in rows)
        for row in rows:
            row.new = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> Entries:
        """Keys and values of one layer, [rows, heads, longest row + nodes, size]. Stores every row's new ones."""
        for row, keys, values in zip(self._rows, key_states, value_states, strict=True):
            row.new[layer_idx] = keys, values
        kept = [row.kept(layer_idx) for row in self._rows]
        return (
            self._joined([entries and entries[0] for entries in kept], key_states),
            self._joined([entries and entries[1] for entries in kept], value_states),
        )

    def _joined(self, kept: Sequence[torch.Tensor | None], new: torch.Tensor) -> torch.Tensor:
        rows, heads, nodes, size = new.shape
        joined = new.new_empty((rows, heads, self._width + nodes, size))
        joined[:, :, self._width :] = new
        for row, entries in zip(joined, kept, strict=True):
            length = 0 if entries is None else entries.shape[1]
            row[:, length : self._width] = 0
            if entries is not None:
                row[:, :length] = entries
        return joined

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of slots before the nodes."""
        return self._width
