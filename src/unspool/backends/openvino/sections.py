"""Where the OpenVINO backend stores which token, so that a token's logits are the same to the last bit in every pass.

The sum of a product over many slots is taken in groups: over more than 512 slots in groups of 512, over more than 1023
in groups of 1024, over fewer in one (seen on x86-64 with AVX-512). Within a group slots are added one after the other,
and masked slots add exact zeros. So a token must always be summed in the same group: while it is new and stands behind
the cache, and afterwards in its own slot. Therefore the text is stored in sections with gaps behind them: a cache that
ends in some section, with up to 128 new nodes behind it, ends in that section's group.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

STEP = 128
"""Capacities are multiples of this, or the end of a section."""

_FIRST = ((384, 0), (382, 512))  # (tokens, first slot) of the sections of caches below 1024 slots
_GROUP, _LATER = 1024, 896  # slots of every later group, and the tokens in it


class Sections:
    """The layout for texts of up to ``max_length`` tokens.

    Attributes:
        slots: [max_length + 1] slot of each position, ascending.
    """

    def __init__(self, max_length: int) -> None:
        parts = list(_FIRST)
        while sum(tokens for tokens, _ in parts) <= max_length:
            parts.append((_LATER, (len(parts) - 1) * _GROUP))
        self.slots: NDArray[np.int64] = np.concatenate([np.arange(slot, slot + tokens) for tokens, slot in parts])
        self._ends = np.cumsum([tokens for tokens, _ in parts]).tolist()

    def room(self, length: int) -> int:
        """Positions from ``length`` to the end of its section."""
        return int(self._ends[bisect_right(self._ends, length)]) - length

    def capacities(self, length: int) -> tuple[int, int]:
        """Smallest and largest capacity of a cache with ``length`` tokens."""
        end = int(self.slots[length + self.room(length) - 1]) + 1
        return min(-(-int(self.slots[length]) // STEP) * STEP or STEP, end), end
