"""The control of localleap relaxes the threshold at as many slots, wherever they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unspool.engine.canvas import BlockState, CanvasScores, CanvasState
from unspool.experiments.localleap import Scattered
from unspool.methods.diffusion.localleap import LocalLeap, LocalLeapOptions


def view(confidence: list[float], seed: int = 0) -> BlockState:
    """All slots masked, with these probabilities of the first of two tokens."""
    logits: NDArray[np.float64] = np.log(np.stack([confidence, 1 - np.array(confidence)], axis=1))
    masked = np.ones(len(confidence), dtype=np.bool_)
    tokens = np.zeros(len(confidence), dtype=np.int64)
    sight = CanvasState(tokens, masked, 0, CanvasScores(0, logits, 0.0), 0)
    return BlockState(sight, 0, masked, logits, tokens, seed)


def test_as_many_slots_are_relaxed_somewhere_else() -> None:
    options = LocalLeapOptions(0.9, 0.6, 2)
    one = view([0.95] + [0.7] * 9)
    near = LocalLeap(options).select(one)
    assert np.flatnonzero(near).tolist() == [0, 1, 2]
    places = set()
    for seed in range(20):
        scattered = Scattered(options).select(view([0.95] + [0.7] * 9, seed))
        assert scattered[0] and scattered.sum() == near.sum()
        places |= set(np.flatnonzero(scattered).tolist())
    assert places == set(range(10))


def test_without_an_anchor_nothing_is_relaxed() -> None:
    assert not Scattered(LocalLeapOptions(0.9, 0.6, 2)).select(view([0.7] * 5)).any()
