"""Classifier-free guidance of a canvas: LLaDA's numbers, the second canvas that is fed, and nothing where it is off."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from unspool.conformance.canvas_model import MockModel, Whatever
from unspool.engine.canvas import CanvasScores
from unspool.engine.canvas_request import Cache, CanvasOptions, CanvasRequest, Parts
from unspool.engine.canvas_scores import guided
from unspool.engine.denoise import denoise
from unspool.engine.trace import CanvasEvent, Event, StartEvent
from unspool.methods.diffusion.fixed_blocks import FixedBlocks, FixedBlocksOptions
from unspool.methods.diffusion.threshold import Threshold, ThresholdOptions
from unspool.methods.diffusion.top_k import TopK

MASK = 3
WITH, WITHOUT = [[1.0, 0.8, -1.0], [0.0, 0.5, 2.0]], [[1.5, 0.5, -1.0], [0.0, 1.0, 1.0]]


class Prompted(MockModel):
    """Two slots behind one token: logits ``WITH`` if it is there, ``WITHOUT`` if it is masked."""

    def __init__(self) -> None:
        super().__init__(4)

    def logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        rows = np.array([[0.0] * 3, *(WITHOUT if tokens[0] == MASK else WITH)])
        return np.hstack([rows, np.full((3, 1), -np.inf)])


def run(scale: float) -> tuple[list[int], list[Event]]:
    events: list[Event] = []
    request = CanvasRequest([0], [None, None], Parts(TopK(), FixedBlocks()), CanvasOptions(guidance_scale=scale))
    return denoise(Prompted(), [request], events.append)[0], events


@pytest.mark.parametrize(("scale", "slots"), [(0.0, [0, 2]), (0.2, [0, 2]), (0.3, [1, 2]), (2.0, [1, 2])])
def test_tokens_and_probabilities_by_hand(scale: float, slots: list[int]) -> None:
    """The first slot: 1 + w (1 - 1.5) against 0.8 + w (0.8 - 0.5), which are equal at w = 1/4."""
    filled, events = run(scale)
    assert filled == slots
    found = {slot: c for e in events if isinstance(e, CanvasEvent) for slot, c in zip(e.committed, e.confidence)}  # noqa: B905
    for slot in (0, 1):
        logits = np.array(WITHOUT[slot]) + (scale + 1) * (np.array(WITH[slot]) - np.array(WITHOUT[slot]))
        expected = np.exp(logits)[slots[slot]] / np.exp(logits).sum()
        assert found[slot] == pytest.approx(float(expected), rel=1e-12)


def test_the_second_canvas_is_the_first_one_with_a_masked_prompt() -> None:
    model = Whatever()
    slots = [None, 2, None, None]
    parts = Parts(TopK(), FixedBlocks(FixedBlocksOptions(2)))
    denoise(model, [CanvasRequest([4, 1], slots, parts, CanvasOptions(cache="dual", guidance_scale=1.0))])
    one, other = model.sessions
    assert one.closed
    assert other.closed
    assert [(f.start, f.stop) for f in one.fed] == [(f.start, f.stop) for f in other.fed] == [(0, 6), (0, 6), (4, 6)]
    for with_prompt, without in zip(one.fed, other.fed, strict=True):
        assert with_prompt.tokens[:2].tolist() == [4, 1]
        assert without.tokens[:2].tolist() == [model.mask_id] * 2
        assert (with_prompt.tokens[2:] == without.tokens[2:]).all()


def test_both_passes_are_counted_and_the_trace_names_the_scale() -> None:
    _, off = run(0.0)
    _, on = run(1.5)
    assert isinstance(on[0], StartEvent)
    assert isinstance(off[0], StartEvent)
    assert on[0].settings == {"backend": "mock", "guidance_scale": "1.5"}
    assert off[0].settings == {"backend": "mock"} == MockModel.settings
    assert [(e.fed, e.ms) for e in on if isinstance(e, CanvasEvent)] == [(6, 2.0)] * 2
    assert [(e.fed, e.ms) for e in off if isinstance(e, CanvasEvent)] == [(3, 1.0)] * 2
    assert CanvasOptions(guidance_scale=1.5).passes_per_step == 2
    assert CanvasOptions().passes_per_step == 1


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_switched_off_it_is_not_there(cache: Cache) -> None:
    """One session, the same feeds, and scores that are handed on as they are."""
    found = []
    for options in (CanvasOptions(0.7, 1, cache), CanvasOptions(0.7, 1, cache, guidance_scale=0.0)):
        model, events = Whatever(), list[Event]()
        parts = Parts(Threshold(ThresholdOptions(0.7)), FixedBlocks(FixedBlocksOptions(4)))
        denoise(model, [CanvasRequest([4], [None] * 8, parts, options)], events.append)
        (session,) = model.sessions
        found.append(([(f.tokens.tolist(), f.start, f.stop) for f in session.fed], events))
    assert found[0] == found[1]


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_rows_of_a_batch_have_their_own_scale(cache: Cache) -> None:
    def requests() -> list[CanvasRequest]:
        return [
            CanvasRequest(
                [4, 1] if scale else [],
                [None] * 8,
                Parts(Threshold(ThresholdOptions(0.6)), FixedBlocks(FixedBlocksOptions(4))),
                CanvasOptions(0.5, 3, cache, guidance_scale=scale),
            )
            for scale in (0.0, 1.0, 3.0, 0.0)
        ]

    together = denoise(Whatever(), requests())
    assert together == [denoise(Whatever(), [request])[0] for request in requests()]
    assert together[1] != together[2]


def test_rows_are_the_formula_in_memory_of_their_own() -> None:
    c, u = (CanvasScores(3, np.array([row], np.float32), ms) for row, ms in (([1.0, 2, -np.inf], 1), ([3.0, 1, 0], 2)))
    both = guided(c, u, 0.5)
    assert both.logits.tolist() == [[0.0, 2.5, -np.inf]]
    assert both.logits.dtype == np.float32
    assert (both.start, both.ms) == (3, 3)
    never = CanvasScores(0, np.array([[-np.inf, 1.0]]), 1)
    assert guided(never, never, 2.0).logits.tolist() == [[-np.inf, 1.0]]
    assert c.logits.tolist() == [[1.0, 2.0, -np.inf]]
