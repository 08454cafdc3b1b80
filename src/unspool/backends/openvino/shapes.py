"""Shapes of what a graph reads: few different ones, since OpenVINO prepares kernels for each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Trees are padded to these sizes with nodes that no node sees. OpenVINO prepares kernels for each new shape, which
# costs as much as a pass or two, so few shapes are better than exact ones.
SIZES = (1, 4, 8, 12, 16, 24, 32, 48, 64)
_SIZE_STEP = 64


def padded(n: int) -> int:
    """Nodes of a pass over a tree of ``n``."""
    return next((size for size in SIZES if size >= n), -(-n // _SIZE_STEP) * _SIZE_STEP)


def resized(array: NDArray[np.float32], capacity: int) -> NDArray[np.float32]:
    """A copy of cache entries [layers, heads, slots, size] with another number of slots; new ones are 0."""
    kept = min(capacity, array.shape[2])
    # Not np.zeros, whose memory comes in small pages: four times as slow to touch.
    resized = np.empty((*array.shape[:2], capacity, array.shape[3]), np.float32)
    resized[:, :, :kept] = array[:, :, :kept]
    resized[:, :, kept:] = 0
    return resized
