"""The end of a text on a canvas: stopping loses nothing, truncating follows Learn2PD's rule, by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from unspool.conformance.canvas_model import MockModel, Whatever
from unspool.engine.canvas import BlockState, CanvasScores, Flags, UnmaskPolicy
from unspool.engine.canvas_request import Cache, CanvasOptions, CanvasRequest, Parts
from unspool.engine.canvas_scores import predicted_end
from unspool.engine.denoise import denoise
from unspool.engine.trace import CanvasEvent, EndEvent, Event
from unspool.errors import UnspoolError
from unspool.methods.diffusion.credit import Credit
from unspool.methods.diffusion.fixed_blocks import FixedBlocks, FixedBlocksOptions
from unspool.methods.diffusion.prophet import Prophet
from unspool.methods.diffusion.threshold import Threshold, ThresholdOptions
from unspool.methods.diffusion.top_k import TopK, TopKOptions

END, MASK = 2, 3
CACHES: list[Cache] = ["none", "prefix", "dual"]


class Says(MockModel):
    """Slot i has token 0 with probability ``chances[i]``, or the end token where that is negative."""

    def __init__(self, *chances: float, then: Callable[[int], float] | None = None) -> None:
        super().__init__(4, END)
        self._chances = chances
        self._then = then

    def logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        rows = []
        for slot, first in enumerate(self._chances[: len(tokens)]):
            chance = first if self._then is None or (tokens == MASK).all() else self._then(slot)
            row = np.full(4, (1 - abs(chance)) / 2)
            row[0 if chance > 0 else END] = abs(chance)
            row[MASK] = 1e-30
            rows.append(row)
        return np.asarray(np.log(rows))


def run(
    model: MockModel, parts: Parts | None = None, slots: int = 6, **options: object
) -> tuple[list[int], list[CanvasEvent]]:
    events: list[Event] = []
    request = CanvasRequest([], [None] * slots, parts or Parts(TopK(), FixedBlocks()), CanvasOptions(**options))  # type: ignore[arg-type]
    (filled,) = denoise(model, [request], events.append)
    assert isinstance(events[-1], EndEvent)
    assert all(session.closed for session in model.sessions)
    return filled, [event for event in events if isinstance(event, CanvasEvent)]


def fed(model: MockModel) -> list[tuple[int, int, int]]:
    """By pass: canvas, first and last position that it fed."""
    return [(len(one.tokens), one.start, one.stop) for session in model.sessions for one in session.fed]


def text(slots: list[int]) -> list[int]:
    return slots[: slots.index(END) + 1] if END in slots else slots


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("block_length", [None, 4])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_stopping_gives_the_same_text_in_fewer_passes(
    temperature: float, block_length: int | None, cache: Cache
) -> None:
    saved = 0
    for seed in range(25):
        found = []
        for stop in (False, True):
            events: list[Event] = []
            parts = Parts(Threshold(ThresholdOptions(0.6)), FixedBlocks(FixedBlocksOptions(block_length)))
            options = CanvasOptions(temperature, seed, cache, stop)
            (slots,) = denoise(
                Whatever(eos_token_id=END), [CanvasRequest([seed % 6, 1], [None] * 12, parts, options)], events.append
            )
            found.append((slots, sum(isinstance(event, CanvasEvent) for event in events)))
        (whole, long), (stopped, short) = found
        assert text(whole) == text(stopped)
        assert short <= long
        saved += long - short
        if short < long:
            assert set(stopped[len(text(stopped)) :]) <= {END, *whole}
    assert saved > 5


def test_an_end_token_without_a_mask_before_it_ends_the_decoding_within_its_block() -> None:
    model = Says(0.9, -0.8, 0.5, 0.95, 0.7, 0.6)
    filled, events = run(model, stop_at_eos=True)
    # 0.95, 0.9, 0.8: then the end stands at slot 1, and slot 0 before it is filled.
    assert [event.committed for event in events] == [(3,), (0,), (1,)]
    assert filled == [0, END, END, 0, END, END]
    assert events[-1].slots == tuple(filled), "the trace shows the finished canvas"
    waiting = Says(0.5, -0.8, 0.6, 0.95, 0.7, 0.6)
    assert len(run(waiting, stop_at_eos=True)[1]) == 6, "slot 0, the least sure, was still a mask"


@pytest.mark.parametrize("given", [1, 5])
def test_an_end_token_that_is_given_ends_the_text_as_well(given: int) -> None:
    slots: list[int | None] = [None] * 8
    slots[given] = END
    model = Says(*[0.9] * 8)
    request = CanvasRequest([], slots, Parts(TopK(), FixedBlocks()), CanvasOptions(stop_at_eos=True))
    assert denoise(model, [request]) == [[0] * given + [END] * (8 - given)]
    assert len(model.sessions[0].fed) == given


@pytest.mark.parametrize(("least", "length"), [(0.0, 5), (0.59, 5), (0.61, 6)])
def test_it_cuts_behind_the_likeliest_of_the_ends_that_are_predicted(least: float, length: int) -> None:
    model = Says(0.9, 0.8, -0.5, 0.7, -0.6, 0.95)
    filled, events = run(model, truncate_at_eos=least)
    # Slot 5 is committed; slot 4 predicts the end with 0.6, slot 2 with 0.5: what lies behind 4 is gone.
    assert fed(model)[:2] == [(6, 0, 6), (length, 0, length)]
    assert events[0].committed == (5,)
    assert events[0].slots[5] == (END if length == 5 else 0)
    assert filled[length:] == [END] * (6 - length)


def test_a_committed_end_token_goes_before_one_that_is_only_predicted_and_the_first_counts() -> None:
    model = Says(0.9, 0.5, -0.8, 0.5, -0.9, 0.5, -0.7, 0.5)
    parts = Parts(Threshold(ThresholdOptions(0.75)), FixedBlocks())
    filled, events = run(model, parts, 8, truncate_at_eos=0.0)
    # 0, 2 and 4 are committed; behind slot 2 all is cut, what was committed there as well.
    assert events[0].committed == (0, 2, 4)
    assert events[0].slots == (0, None, END, END, END, END, END, END)
    assert fed(model) == [(8, 0, 8), (3, 0, 3)]
    assert filled == [0, 0, *[END] * 6]


def test_a_wrong_prediction_cuts_the_text_for_good_and_the_canvas_never_grows() -> None:
    """The paper's rule: slot 1 predicts the end once, and another token from the second pass on."""
    model = Says(0.9, -0.5, 0.7, 0.6, then=lambda slot: 0.8)
    filled, _ = run(model, slots=4, truncate_at_eos=0.0)
    assert filled == [0, 0, END, END]
    assert [length for length, *_ in fed(model)] == [4, 2]
    careful, _ = run(Says(0.9, -0.5, 0.7, 0.6, then=lambda slot: 0.8), slots=4, truncate_at_eos=0.9)
    assert careful == [0, 0, 0, 0]


@pytest.mark.parametrize("cache", CACHES)
def test_what_a_pass_did_not_feed_is_not_looked_at_and_a_shorter_canvas_is_fed_whole(cache: Cache) -> None:
    # The end is predicted in the second block from the second pass on.
    chances = [0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.5, 0.5]
    model = Says(*chances, then=lambda slot: -0.5 if slot == 5 else chances[slot])
    parts = Parts(TopK(), FixedBlocks(FixedBlocksOptions(4)))
    run(model, parts, 8, cache=cache, truncate_at_eos=0.0)
    passes = fed(model)
    if cache == "dual":
        assert passes[:5] == [(8, 0, 8), (8, 0, 4), (8, 0, 4), (8, 0, 4), (8, 0, 8)]
    else:
        assert passes[:3] == [(8, 0, 8), (8, 0, 8), (6, 0, 6)]
    lengths = [length for length, *_ in passes]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 6


def test_after_a_cut_a_cache_is_filled_anew_and_used_again() -> None:
    model = Says(0.5, 0.6, 0.7, 0.8, 0.9, 0.5, 0.5, -0.5)
    parts = Parts(TopK(), FixedBlocks(FixedBlocksOptions(4)))
    run(model, parts, 8, cache="prefix", truncate_at_eos=0.0)
    # Nothing lies behind the predicted end, so nothing is cut and no pass repeated.
    assert fed(model) == [(8, 0, 8)] + [(8, 0, 8)] * 3 + [(8, 0, 8)] + [(8, 4, 8)] * 3
    model = Says(0.5, 0.6, 0.7, 0.8, 0.9, 0.5, -0.5, 0.5)
    run(model, parts, 8, cache="prefix", truncate_at_eos=0.0)
    assert fed(model) == [(8, 0, 8)] + [(7, 0, 7)] * 3 + [(7, 0, 7)] + [(7, 4, 7)] * 2


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("block_length", [None, 3, 6])
@pytest.mark.parametrize("seed", range(6))
def test_every_part_works_on_a_canvas_that_gets_shorter(seed: int, block_length: int | None, cache: Cache) -> None:
    """Blocks keep their length, so parts with state by slot do too; every pass commits and none looks behind a cut."""
    policies: list[Callable[[], UnmaskPolicy]] = [
        lambda: TopK(TopKOptions(2)),
        lambda: Threshold(ThresholdOptions(0.7)),
    ]
    for policy in policies:

        def parts(policy: Callable[[], UnmaskPolicy] = policy) -> Parts:
            return Parts(policy(), FixedBlocks(FixedBlocksOptions(block_length)), [Credit()], Prophet())

        options = CanvasOptions(0.7, seed, cache, truncate_at_eos=0.5, guidance_scale=0.5 * (seed % 2))
        requests = [CanvasRequest([prompt, 1], [None] * 12, parts(), options) for prompt in range(3)]
        events: list[Event] = []
        model = Whatever(eos_token_id=END)
        together = denoise(model, requests, events.append)
        steps = [event for event in events if isinstance(event, CanvasEvent)]
        assert all(event.committed for event in steps)
        assert all(MASK + 3 not in slots for slots in together)
        lengths: dict[int, int] = {}
        for event in steps:
            shown = list(event.slots)
            left = max((i for i, token in enumerate(shown) if token is None), default=-1) + 1
            assert left <= lengths.get(event.row, 12)
            lengths[event.row] = left
        for i, slots in enumerate(together):
            again = CanvasRequest([i, 1], [None] * 12, parts(), options)
            assert denoise(Whatever(eos_token_id=END), [again]) == [slots], "a row decodes as it would alone"


def test_parts_see_slots_that_were_cut_off_as_decided() -> None:
    seen: list[tuple[list[bool], list[float], list[int]]] = []

    class Looks(TopK):
        def select(self, view: BlockState) -> Flags:
            seen.append((view.masked.tolist(), view.confidence.tolist(), view.tokens.tolist()))
            return super().select(view)

    run(Says(0.9, 0.5, -0.8, 0.5, 0.6), Parts(Looks(), FixedBlocks()), 5, truncate_at_eos=0.0)
    assert [len(masked) for masked, *_ in seen] == [5, 5, 5], "a block keeps its length"
    for masked, confidence, tokens in seen[1:]:
        assert masked[3:] == [False, False]
        assert confidence[3:] == [1.0, 1.0]
        assert tokens[3:] == [END, END]
        assert confidence[:3] == pytest.approx([0.9, 0.5, 0.8])


def test_the_end_that_is_predicted() -> None:
    logits = np.log(np.array([[0.2, 0.1, 0.6, 0.1], [0.1, 0.1, 0.2, 0.6], [0.6, 0.1, 0.2, 0.1], [0.1, 0.1, 0.7, 0.1]]))
    scores, masked = CanvasScores(2, logits, 1.0), np.ones(7, dtype=np.bool_)

    def found(least: float = 0.0, **committed: int) -> int | None:
        open_slots = masked.copy()
        open_slots[list(committed.values())] = False
        return predicted_end(scores, open_slots, MASK, END, least)

    # The mask is no token: without it the ends have 0.6 / 0.9, 0.2 / 0.4 and 0.7 / 0.9.
    assert found() == 5
    assert found(0.77) == 5
    assert found(0.78) is None
    assert found(a=5) == 2
    assert found(a=5, b=2) == 3
    assert found(0.51, a=5, b=2) is None
    assert found(a=5, b=2, c=3) is None


def test_what_does_not_go_with_a_cut_is_refused_before_any_pass() -> None:
    class Anything:
        def check(self, slots: object) -> None: ...

        def allows(self, slots: object, slot: int, token: int) -> bool:
            return True

    options = CanvasOptions(truncate_at_eos=0.5)
    model = Says(0.5, 0.5)
    constrained = Parts(TopK(), FixedBlocks(), constraint=Anything())
    with pytest.raises(UnspoolError, match="a constraint asks for"):
        denoise(model, [CanvasRequest([], [None, None], constrained, options)])
    with pytest.raises(UnspoolError, match="slots that are given"):
        denoise(model, [CanvasRequest([], [None, 0], Parts(TopK(), FixedBlocks()), options)])
    assert not model.sessions
