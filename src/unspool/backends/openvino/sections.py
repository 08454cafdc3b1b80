"""Where the OpenVINO backend stores each token, so that a token's logits are bit-identical in every pass.

The sum of a product over many slots is taken in groups: above 1023 slots in groups of 1024, above 512 in groups of 512,
otherwise in one (measured on x86-64 with AVX-512). Within a group, slots are added in order, and masked slots add exact
zeros. So a token must always be in the same group: while it is new and follows the cache, and later in its own slot.
Therefore the text is stored in sections followed by gaps: if a cache ends in a section, up to 128 new nodes after it
end in that section's group.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

STEP = 128
"""Capacities are multiples of this, or the end of a section."""

_FIRST = ((384, 0), (382, 512))  # (tokens, first slot) of the sections of caches below 1024 slots
_GROUP, _LATER = 1024, 896  # slots of every later group, and its tokens


class Sections:
    """The layout of texts of up to ``max_length`` tokens.

    Attributes:
        slots: [max_length + 1] slot of each position, ascending.
    """

    def __init__(self, max_length: int) -> None:
        parts = list(_FIRST)
        while sum(tokens for tokens, _ in parts) <= max_length:
            parts.append((_LATER, (len(parts) - 1) * _GROUP))
        self.slots: NDArray[np.int64] = np.concatenate([np.arange(slot, slot + tokens) for tokens, slot in parts])
        self._ends = np.cumsum([tokens for tokens, _ in parts]).tolist()

    def max_depth(self, length: int) -> int:
        """Number of positions from ``length`` to the end of its section."""
        return int(self._ends[bisect_right(self._ends, length)]) - length

    def capacities(self, length: int) -> tuple[int, int]:
        """Minimum and maximum capacity of a cache with ``length`` tokens."""
        end = int(self.slots[length + self.max_depth(length) - 1]) + 1
        return min(-(-int(self.slots[length]) // STEP) * STEP or STEP, end), end
