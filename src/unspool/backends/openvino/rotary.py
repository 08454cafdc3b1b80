"""Rotary position embeddings of a model, measured from its own keys.

A rotary model stores the key of position p as the unrotated key turned by p times a frequency, pair by pair: entry t
of a head with entry t + half (transformers' half-split layout). A key moves by d positions if it is turned by another d
times the frequency. The frequencies are measured from keys of equal tokens at many positions. So scaling, partial
rotation, layers with different bases and layers without positions need no special case, and anything else (learned
positions, interleaved pairs, frequencies that change with the length) is detected, not assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.errors import UnsupportedError

KeysAt = Callable[[NDArray[np.int64], NDArray[np.int64]], Sequence[NDArray[Any]]]
"""From ids [n] and positions [n] to each layer's keys [heads, n, size], of tokens that attend only to themselves."""

_TOKENS = 4
_TOLERANCE = 0.05
"""Relative to a pair's length. Above the error of bfloat16 or of float32 angles at position 131072, far below that of a
wrong pair."""


def frequencies(keys_at: KeysAt, vocab_size: int, max_length: int) -> list[NDArray[np.float64]]:
    """Radians per position of each pair, [pairs] a layer.

    Args:
        keys_at: runs the model; the keys of equal tokens may differ only by their positions.
        vocab_size, max_length: of the model.

    Raises:
        UnsupportedError: if the keys are not rotated by fixed frequencies in half-split pairs up to ``max_length``.
    """
    doubling = [1 << k for k in range(max_length.bit_length()) if 1 << k < max_length - 1]
    positions = np.array([0, *doubling, max_length - 1])
    tokens = vocab_size * (2 * np.arange(_TOKENS) + 1) // (2 * _TOKENS)
    layers = keys_at(np.tile(tokens, len(positions)), np.repeat(positions, _TOKENS))
    return [_layer(keys.reshape(len(keys), len(positions), _TOKENS, -1), positions) for keys in layers]


def _layer(keys: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Frequencies of one layer from keys [heads, positions, tokens, size]; only leading entries may be rotated."""
    for rotated in range(keys.shape[-1] // 2 * 2, 0, -2):
        half = rotated // 2
        pairs = keys[..., :half] + 1j * keys[..., half:rotated].astype(np.float64)
        turns = (pairs * pairs[:, :1].conj()).sum(axis=(0, 2))  # [positions, pairs]
        found = np.zeros(half)
        for position, turn in zip(positions[1:], turns[1:], strict=True):
            # Twice the distance doubles the precision; the previous estimate gives the number of full turns.
            full = np.round((found * position - np.angle(turn)) / (2 * np.pi))
            found = (np.angle(turn) + 2 * np.pi * full) / position
        expected = pairs[:, :1] * np.exp(1j * positions[:, None, None] * found)
        rest = keys[..., rotated:]
        if _near(pairs, expected) and _near(rest, np.broadcast_to(rest[:, :1], rest.shape)):
            return found
    raise UnsupportedError(
        "this model's keys cannot be moved to other positions: they are not rotated by fixed frequencies in half-split "
        'pairs; use mode "recompute" or another model'
    )


def _near(values: NDArray[Any], expected: NDArray[Any]) -> bool:
    axes = (0, 1, 2)
    off = np.abs(values - expected).max(axis=axes, initial=0)
    return bool((off <= _TOLERANCE * np.abs(expected).max(axis=axes, initial=0)).all())


def turn(keys: Any, cos: Any, sin: Any) -> None:
    """Turn keys [..., size] in place by angles given as cosine and sine, [pairs]; arrays or tensors."""
    half = cos.shape[-1]
    a, b = keys[..., :half], keys[..., half : 2 * half]
    turned = a * cos - b * sin, b * cos + a * sin
    keys[..., :half], keys[..., half : 2 * half] = turned
