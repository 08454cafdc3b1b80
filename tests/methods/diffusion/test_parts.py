"""Parts by hand: numbers that the cards give, on logits that are written down."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.methods.diffusion.mocks import Exact
from unspool.conformance.canvas_model import Whatever
from unspool.engine import noise
from unspool.engine.canvas import BlockState, CanvasScores, CanvasState
from unspool.engine.canvas_request import CanvasRequest, Parts
from unspool.engine.denoise import denoise
from unspool.engine.trace import CanvasEvent, Event
from unspool.methods.diffusion.adablock import AdaBlock, AdaBlockOptions
from unspool.methods.diffusion.credit import Credit, CreditOptions
from unspool.methods.diffusion.factor import Factor, FactorOptions
from unspool.methods.diffusion.fixed_blocks import FixedBlocks, FixedBlocksOptions
from unspool.methods.diffusion.prophet import Prophet, ProphetOptions
from unspool.methods.diffusion.threshold import Threshold, ThresholdOptions
from unspool.methods.diffusion.top_k import TopK


def sight(logits: NDArray[np.float64], prompt_length: int = 0) -> CanvasState:
    n = len(logits)
    return CanvasState(np.full(n, 9), np.arange(n) >= prompt_length, prompt_length, CanvasScores(0, logits, 1.0), 0)


def view(probabilities: NDArray[np.float64], masked: NDArray[np.bool_] | None = None) -> BlockState:
    logits = np.log(probabilities)
    masked = np.ones(len(logits), dtype=np.bool_) if masked is None else masked
    return BlockState(sight(logits), 0, masked, logits, logits.argmax(axis=1), 0)


def sure(*confidence: float) -> NDArray[np.float64]:
    """Three tokens; the first has this probability, the others share the rest."""
    return np.array([[c, (1 - c) / 2, (1 - c) / 2] for c in confidence])


@pytest.mark.parametrize(
    ("factor", "confidence", "chosen"),
    [
        # (n + 1) (1 - c) < 1: one needs c > 1/2, two need 2/3, three need 3/4.
        (1.0, (0.76, 0.9, 0.8), [True, True, True]),
        (1.0, (0.74, 0.9, 0.8), [False, True, True]),
        (1.0, (0.74, 0.7, 0.74), [True, False, True]),
        (1.0, (0.6, 0.66, 0.65), [False, True, False]),
        (1.0, (0.4, 0.45, 0.34), [False, True, False]),
        (0.5, (0.76, 0.9, 0.8), [False, True, False]),
        (0.5, (0.84, 0.9, 0.84), [True, True, False]),
    ],
)
def test_factor(factor: float, confidence: tuple[float, ...], chosen: list[bool]) -> None:
    assert Factor(FactorOptions(factor)).select(view(sure(*confidence))).tolist() == chosen


def test_factor_counts_masked_slots_alone() -> None:
    masked = np.array([True, False, True])
    assert Factor().select(view(sure(0.7, 0.99, 0.7), masked)).tolist() == [True, False, True]


def test_credit_of_a_constant_favourite_grows_to_its_bound() -> None:
    """C -> p^gamma / (1 - beta), so the odds grow (1 + C)^alpha times: 3.5 at most with the defaults."""
    p = 0.5
    credit, seen = Credit(), view(sure(p))
    credit.start_block(seen)
    gains = [float(np.exp(credit(seen)[0, 0] - seen.logits[0, 0])) for _ in range(60)]
    assert gains[0] == pytest.approx((1 + p**0.2) ** 0.7, rel=1e-12)
    assert gains[1] == pytest.approx((1 + 1.8 * p**0.2) ** 0.7, rel=1e-12)
    assert gains[-1] == pytest.approx((1 + 5 * p**0.2) ** 0.7, rel=1e-4)
    assert all(a < b <= 6**0.7 for a, b in pairwise(gains))


def test_credit_stays_with_the_token_that_earned_it_and_decays() -> None:
    credit = Credit(CreditOptions(alpha=1.0))
    first, second = view(np.array([[0.6, 0.3, 0.1]])), view(np.array([[0.3, 0.6, 0.1]]))
    credit.start_block(first)
    credit(first)
    added = credit(second) - second.logits
    assert added[0] == pytest.approx([np.log1p(0.8 * 0.6**0.2), np.log1p(0.6**0.2), 0.0])


def test_credit_is_not_given_to_committed_slots_but_decays_there() -> None:
    credit, masked = Credit(), view(sure(0.6))
    credit.start_block(masked)
    before = credit(masked)[0, 0]
    committed = view(sure(0.6), np.array([False]))
    assert masked.logits[0, 0] < credit(committed)[0, 0] < before


def test_parameter_free_credit_trusts_history_as_the_block_fills() -> None:
    credit = Credit(CreditOptions(parameter_free=True))
    empty, half = view(sure(0.6, 0.6)), view(sure(0.6, 0.6), np.array([True, False]))
    credit.start_block(empty)
    assert (credit(empty) == empty.logits).all()
    # Half is masked: alpha = beta = 1/2, gamma = 1.
    assert credit(half)[0, 0] - half.logits[0, 0] == pytest.approx(0.5 * np.log1p(0.5 * 0.6 + 0.6))


def test_sparse_credit_drops_the_token_with_the_least() -> None:
    credit = Credit(CreditOptions(alpha=1.0, kept=1))
    first, second = view(np.array([[0.6, 0.3, 0.1]])), view(np.array([[0.3, 0.6, 0.1]]))
    credit.start_block(first)
    credit(first)
    assert (credit(second) - second.logits)[0] == pytest.approx([0.0, np.log1p(0.6**0.2), 0.0])


def newlines(*confidence: float) -> NDArray[np.float64]:
    """Token 1 is the delimiter; where its probability is below a half, token 0 is the likeliest."""
    return np.log(np.array([[1 - c, c] for c in confidence]))


@pytest.mark.parametrize(
    ("confidence", "length"),
    [
        ([0.1, 0.1, 0.6, 0.1] + [0.1] * 12, 3),
        ([0.1, 0.6, 0.7, 0.1] + [0.1] * 12, 3),
        ([0.1, 0.7, 0.7, 0.1] + [0.1] * 12, 2),
        # Behind the window, a quarter of 16 slots, nothing is looked at.
        ([0.1, 0.1, 0.1, 0.1, 0.9] + [0.1] * 11, 5),
        # Probable, but not the likeliest token.
        ([0.1, 0.45, 0.1, 0.1] + [0.1] * 12, 5),
    ],
)
def test_adablock_ends_at_the_most_confident_delimiter(confidence: list[float], length: int) -> None:
    schedule = AdaBlock(AdaBlockOptions([1], 0.3, block_length=5))
    assert schedule.next_block(0, sight(newlines(*confidence))) == length


def test_adablock_asks_for_a_confident_delimiter_and_ends_with_the_canvas() -> None:
    seen = sight(newlines(0.1, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1))
    assert AdaBlock(AdaBlockOptions([1], 0.65, block_length=5)).next_block(0, seen) == 5
    assert AdaBlock(AdaBlockOptions([1], 0.65, block_length=5)).next_block(6, seen) == 2


def test_adablock_can_look_as_far_as_a_quarter_of_what_is_written() -> None:
    seen = sight(newlines(*[0.1] * 10, 0.9, *[0.1] * 5))
    options = AdaBlockOptions([1], 0.3, block_length=5, window="generated")
    assert AdaBlock(options).next_block(8, seen) == 5
    assert AdaBlock(options).next_block(9, seen) == 2


def test_blocks_stay_aligned_behind_a_slot_that_was_given() -> None:
    model = Exact(3, lambda tokens: np.array([[1.0, 0.0]] * len(tokens)))
    parts = Parts(Threshold(ThresholdOptions(0.5)), FixedBlocks(FixedBlocksOptions(4)))
    events: list[Event] = []
    denoise(model, [CanvasRequest([1], [1, *[None] * 7], parts)], events.append)
    assert [e.committed for e in events if isinstance(e, CanvasEvent)] == [(1, 2, 3), (4, 5, 6, 7)]


def test_noise_differs_from_step_to_step_and_from_that_of_a_text() -> None:
    noises = [noise.canvas_gumbel(1, 5, step, 8).tolist() for step in range(3)] + [noise.gumbel(1, 5, 8).tolist()]
    assert len({tuple(row) for row in noises}) == 4


@pytest.mark.parametrize("given", [0, 15, 17])
def test_prophets_progress_is_that_of_the_masks(given: int) -> None:
    """What stands on the canvas was never decoded: the last third begins when two of three masks are filled."""
    never = float("inf")
    bars = ProphetOptions(high=never, middle=never, low=-1.0)
    holes = 20 - given
    parts = Parts(TopK(), FixedBlocks(), (), Prophet(bars))
    events: list[Event] = []
    denoise(Whatever(), [CanvasRequest([3, 1], [2] * given + [None] * holes, parts)], events.append)
    passes = sum(isinstance(event, CanvasEvent) for event in events)
    one_by_one = next((done for done in range(holes) if done / holes >= 0.67), holes - 1)
    assert passes == one_by_one + 1
