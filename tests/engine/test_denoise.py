"""The denoise loop with any parts on arbitrary logits: what every pass keeps, identities of the cards, bad input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tests.pairwise import pairwise
from unspool.conformance.canvas_model import Whatever
from unspool.engine.canvas import BlockSchedule, ScoreTransform, StopRule, UnmaskPolicy
from unspool.engine.canvas_request import Cache, CanvasOptions, CanvasRequest, Parts
from unspool.engine.denoise import denoise
from unspool.engine.trace import CanvasEvent, EndEvent, Event, StartEvent
from unspool.errors import UnspoolError
from unspool.methods.diffusion.adablock import AdaBlock, AdaBlockOptions
from unspool.methods.diffusion.credit import Credit, CreditOptions
from unspool.methods.diffusion.eb_sampler import EBSampler
from unspool.methods.diffusion.entropy_threshold import EntropyThreshold, EntropyThresholdOptions
from unspool.methods.diffusion.factor import Factor, FactorOptions
from unspool.methods.diffusion.fixed_blocks import FixedBlocks, FixedBlocksOptions
from unspool.methods.diffusion.localleap import LocalLeap, LocalLeapOptions
from unspool.methods.diffusion.prophet import Prophet, ProphetOptions
from unspool.methods.diffusion.threshold import Threshold, ThresholdOptions
from unspool.methods.diffusion.top_k import ORDERS, TopK, TopKOptions

INFINITY = float("inf")

POLICIES: dict[str, Callable[[], UnmaskPolicy]] = {
    **{f"top_k {order}": lambda order=order: TopK(TopKOptions(3, order)) for order in ORDERS},  # type: ignore[misc]
    "threshold": lambda: Threshold(ThresholdOptions(0.7)),
    "factor": Factor,
    "entropy_threshold": EntropyThreshold,
    "eb_sampler": EBSampler,
    "localleap": lambda: LocalLeap(LocalLeapOptions(0.8, 0.4, 2)),
}
SCHEDULES: dict[str, Callable[[], BlockSchedule]] = {
    "whole": FixedBlocks,
    "blocks of 4": lambda: FixedBlocks(FixedBlocksOptions(4)),
    "adablock": lambda: AdaBlock(AdaBlockOptions([0, 1], 0.2, block_length=5)),
}
TRANSFORMS: dict[str, Callable[[], list[ScoreTransform]]] = {
    "none": list,
    "credit": lambda: [Credit()],
    "credit, sparse": lambda: [Credit(CreditOptions(kept=2))],
    "credit, parameter-free": lambda: [Credit(CreditOptions(parameter_free=True))],
}
SLOTS = [None] * 12
GIVEN = [None, None, 2, None, None, 4, 4, None, None, None, 1, None]


def run(
    model: Whatever,
    policy: UnmaskPolicy,
    schedule: BlockSchedule | None = None,
    transforms: Sequence[ScoreTransform] = (),
    stop: StopRule | None = None,
    prompt: Sequence[int] = (3, 1),
    slots: Sequence[int | None] = SLOTS,
    options: CanvasOptions | None = None,
) -> list[CanvasEvent]:
    parts = Parts(policy, schedule or FixedBlocks(), transforms, stop)
    events: list[Event] = []
    (filled,) = denoise(model, [CanvasRequest(prompt, slots, parts, options or CanvasOptions())], events.append)
    assert isinstance(events[0], StartEvent)
    assert isinstance(events[-1], EndEvent)
    steps = [event for event in events if isinstance(event, CanvasEvent)]
    if steps:
        assert list(steps[-1].slots) == filled
    return steps


def untimed(events: list[CanvasEvent]) -> list[tuple[object, ...]]:
    return [(e.step, e.block, e.slots, e.committed, e.confidence, e.fed) for e in events]


@pytest.mark.parametrize(
    ("policy", "schedule", "transforms", "slots", "temperature", "cache"),
    pairwise(POLICIES, SCHEDULES, TRANSFORMS, [SLOTS, GIVEN], [0.0, 0.7], ["none", "prefix", "dual"]),
)
def test_every_pass_commits_within_its_block_and_changes_nothing_else(
    policy: str, schedule: str, transforms: str, slots: list[int | None], temperature: float, cache: Cache
) -> None:
    model = Whatever()
    events = run(
        model,
        POLICIES[policy](),
        SCHEDULES[schedule](),
        TRANSFORMS[transforms](),
        slots=slots,
        options=CanvasOptions(temperature=temperature, cache=cache, seed=3),
    )
    before = list(slots)
    blocks: dict[int, list[int]] = {}
    for number, event in enumerate(events):
        assert event.step == number
        assert event.committed
        for slot in event.committed:
            assert before[slot] is None
            assert event.slots[slot] != model.mask_id
        assert [t for i, t in enumerate(event.slots) if i not in event.committed] == [
            t for i, t in enumerate(before) if i not in event.committed
        ]
        assert all(0 < c <= 1 for c in event.confidence)
        blocks.setdefault(event.block, []).extend(event.committed)
        before = list(event.slots)
    assert None not in before
    assert all(max(blocks[a]) < min(blocks[a + 1]) for a in range(len(blocks) - 1))
    (session,) = model.sessions
    assert session.closed
    assert len(session.fed) == len(events)
    for fed, event, last in zip(session.fed, events, [None, *events], strict=False):
        first_of_block = last is None or last.block != event.block
        start, stop = min(blocks[event.block]) + 2, max(blocks[event.block]) + 3
        if cache == "none" or first_of_block:
            assert (fed.start, fed.stop) == (0, 14)
        else:
            assert fed.start <= start
            assert fed.start > 0
            assert (fed.stop == 14) if cache == "prefix" else (stop <= fed.stop)
        assert event.fed == fed.stop - fed.start


@pytest.mark.parametrize(("policy", "transforms", "schedule"), pairwise(POLICIES, TRANSFORMS, SCHEDULES))
def test_rows_of_a_batch_decode_as_alone(policy: str, transforms: str, schedule: str) -> None:
    prompts = [[3, 1], [], [5, 5, 0, 2, 1]]
    canvases: list[list[int | None]] = [[None] * 12, GIVEN, [None] * 4]

    def requests() -> list[CanvasRequest]:
        return [
            CanvasRequest(
                prompt,
                slots,
                Parts(POLICIES[policy](), SCHEDULES[schedule](), TRANSFORMS[transforms]()),
                CanvasOptions(temperature=0.5, seed=seed),
            )
            for seed, (prompt, slots) in enumerate(zip(prompts, canvases, strict=True))
        ]

    together = denoise(Whatever(), requests())
    assert together == [denoise(Whatever(), [request])[0] for request in requests()]


SAME: dict[str, tuple[Callable[[], dict[str, object]], Callable[[], dict[str, object]]]] = {
    "a threshold above 1 is one token a step": (
        lambda: {"policy": Threshold(ThresholdOptions(1.01))},
        lambda: {"policy": TopK()},
    ),
    "a factor near 0 is one token a step": (
        lambda: {"policy": Factor(FactorOptions(1e-12))},
        lambda: {"policy": TopK()},
    ),
    "an entropy threshold below 0 is one token a step": (
        lambda: {"policy": EntropyThreshold(EntropyThresholdOptions(-1.0))},
        lambda: {"policy": TopK(TopKOptions(1, "entropy"))},
    ),
    "localleap with equal thresholds": (
        lambda: {"policy": LocalLeap(LocalLeapOptions(0.6, 0.6, 4))},
        lambda: {"policy": Threshold(ThresholdOptions(0.6))},
    ),
    "localleap with a radius of 0": (
        lambda: {"policy": LocalLeap(LocalLeapOptions(0.6, 0.2, 0))},
        lambda: {"policy": Threshold(ThresholdOptions(0.6))},
    ),
    "credit with alpha 0": (
        lambda: {"policy": Threshold(), "transforms": [Credit(CreditOptions(alpha=0.0))]},
        lambda: {"policy": Threshold()},
    ),
    "sparse credit that keeps as many as there are steps": (
        lambda: {"policy": Threshold(), "transforms": [Credit(CreditOptions(kept=12))]},
        lambda: {"policy": Threshold(), "transforms": [Credit()]},
    ),
    "prophet with bars of infinity": (
        lambda: {"policy": TopK(), "stop": Prophet(ProphetOptions(None, INFINITY, INFINITY, INFINITY))},
        lambda: {"policy": TopK()},
    ),
    "adablock with a threshold of infinity": (
        lambda: {"policy": Threshold(), "schedule": AdaBlock(AdaBlockOptions([0], INFINITY, block_length=4))},
        lambda: {"policy": Threshold(), "schedule": FixedBlocks(FixedBlocksOptions(4))},
    ),
    "a block of the whole canvas": (
        lambda: {"policy": Threshold(), "schedule": FixedBlocks(FixedBlocksOptions(12))},
        lambda: {"policy": Threshold()},
    ),
}


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("what", SAME)
def test_identities(what: str, temperature: float) -> None:
    one, other = SAME[what]
    options = CanvasOptions(temperature=temperature, seed=1)
    a = run(Whatever(), **one(), options=options)  # type: ignore[arg-type]
    b = run(Whatever(), **other(), options=options)  # type: ignore[arg-type]
    assert untimed(a) == untimed(b)


@pytest.mark.parametrize(
    "part",
    [
        {"policy": LocalLeap(LocalLeapOptions(0.6, 0.2, 2))},
        {"policy": Threshold(ThresholdOptions(0.6)), "transforms": [Credit()]},
        {"policy": Threshold(ThresholdOptions(0.6)), "stop": Prophet(ProphetOptions(None, 1.0, 1.0, 1.0))},
        {
            "policy": Threshold(ThresholdOptions(0.6)),
            "schedule": AdaBlock(AdaBlockOptions([0, 1, 2, 3, 4, 5], 0.0, block_length=12)),
        },
    ],
)
def test_the_same_parts_do_something_where_they_are_not_switched_off(part: dict[str, object]) -> None:
    plain = run(Whatever(), Threshold(ThresholdOptions(0.6)))
    assert untimed(run(Whatever(), **part)) != untimed(plain)  # type: ignore[arg-type]


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_caches_of_one_layer_are_not_stale_within_a_block(cache: Cache) -> None:
    """The mock's logits depend on tokens alone, and those outside a block do not change while it is decoded."""
    schedule = FixedBlocksOptions(4)
    a = run(Whatever(), Threshold(), FixedBlocks(schedule), options=CanvasOptions(cache=cache))
    b = run(Whatever(), Threshold(), FixedBlocks(schedule))
    assert [event.slots for event in a] == [event.slots for event in b]
    assert sum(event.fed for event in a) < sum(event.fed for event in b)


def test_fixed_blocks_end_at_multiples_whatever_is_given() -> None:
    slots: list[int | None] = [1, 2, None, None, 3, 3, 3, 3, None, 0, None, None]
    events = run(Whatever(), Threshold(ThresholdOptions(0.0)), FixedBlocks(FixedBlocksOptions(4)), slots=slots)
    assert [event.committed for event in events] == [(2, 3), (8, 10, 11)]


def test_the_steps_of_a_block_are_as_even_as_lladas() -> None:
    events = run(Whatever(), TopK(TopKOptions(4)), slots=[None] * 10)
    assert [len(event.committed) for event in events] == [4, 3, 3]


def test_localleap_by_hand() -> None:
    """An anchor relaxes two slots on either side, within the block; committed slots are no anchors."""
    from tests.methods.diffusion.mocks import Exact

    confidence = [0.5, 0.8, 0.95, 0.8, 0.8, 0.8, 0.8, 0.5]

    def marginals(
        tokens: np.ndarray[tuple[int], np.dtype[np.int64]],
    ) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        return np.array([[c, 1 - c, 0.0] for c in confidence])

    parts = Parts(LocalLeap(LocalLeapOptions(0.9, 0.75, 2)), FixedBlocks())
    events: list[Event] = []
    denoise(Exact(4, marginals), [CanvasRequest([], [None] * 8, parts)], events.append)
    committed = [event.committed for event in events if isinstance(event, CanvasEvent)]
    assert committed[0] == (1, 2, 3, 4)
    assert all(len(slots) == 1 for slots in committed[1:])


def test_prophet_fills_the_rest_with_the_likeliest_tokens_and_keeps_what_was_committed() -> None:
    model = Whatever()
    plain = run(Whatever(), TopK())
    events = run(model, TopK(), stop=Prophet(ProphetOptions((4, 6), INFINITY, 0.0, 0.0)))
    # Nothing before a third of the slots is committed, all of it after.
    assert untimed(events)[:4] == untimed(plain)[:4]
    assert len(events) == 5
    last = model.sessions[0].fed[-1].tokens
    rows = model.logits(last)[2:]
    rows[:, model.mask_id] = -INFINITY
    assert all(events[-1].slots[slot] == rows[slot].argmax() for slot in events[-1].committed)
    assert None not in events[-1].slots


def test_prophet_does_not_look_at_passes_over_a_part_of_the_masks() -> None:
    stop = Prophet(ProphetOptions((0, 2), INFINITY, -1.0, -1.0))
    schedule = FixedBlocks(FixedBlocksOptions(6))
    model = Whatever()
    events = run(model, TopK(), schedule, stop=stop, options=CanvasOptions(cache="dual"))
    # At a third of the slots the second block has not begun: its first pass, over everything, is the next to be asked.
    assert len(events) == 7
    assert (model.sessions[0].fed[-1].start, model.sessions[0].fed[-1].stop) == (0, 14)


def test_a_canvas_without_masks_needs_no_pass() -> None:
    model = Whatever()
    assert run(model, TopK(), slots=[1, 2]) == []
    assert model.sessions[0].fed == []


def test_noise_belongs_to_seed_position_and_step() -> None:
    def slots(seed: int) -> tuple[int | None, ...]:
        return run(Whatever(), TopK(TopKOptions(12)), options=CanvasOptions(temperature=1.0, seed=seed))[-1].slots

    assert slots(1) == slots(1)
    assert len({slots(seed) for seed in range(8)}) > 1


@pytest.mark.parametrize(
    ("slots", "prompt", "parts", "options", "message"),
    [
        ([], [1], Parts(TopK(), FixedBlocks()), {}, "no slots"),
        ([None] * 300, [1], Parts(TopK(), FixedBlocks()), {}, "256 positions"),
        ([None, 6], [1], Parts(TopK(), FixedBlocks()), {}, "is the mask"),
        ([None, 9], [1], Parts(TopK(), FixedBlocks()), {}, "outside the model's vocabulary"),
        ([None], [-1], Parts(TopK(), FixedBlocks()), {}, "outside the model's vocabulary"),
        ([None] * 10, [1], Parts(TopK(), FixedBlocks(FixedBlocksOptions(4))), {}, "take 8 or 12 slots"),
        ([None] * 3, [1], Parts(TopK(), FixedBlocks(FixedBlocksOptions(4))), {}, "take 4 slots"),
        ([None], [1], Parts(TopK(), FixedBlocks(), (), Prophet(ProphetOptions((0, 2)))), {}, "do not lie in"),
        ([None], [1], Parts(TopK(), FixedBlocks()), {"stop_at_eos": True}, "stop_at_eos needs a model with an end"),
        ([None], [1], Parts(TopK(), FixedBlocks()), {"truncate_at_eos": 0.5}, "truncate_at_eos needs a model with an"),
        ([None], [], Parts(TopK(), FixedBlocks()), {"guidance_scale": 0.5}, "needs a prompt to mask"),
    ],
)
def test_bad_input_is_refused_before_any_pass(
    slots: list[int | None], prompt: list[int], parts: Parts, options: dict[str, object], message: str
) -> None:
    model = Whatever()
    with pytest.raises(UnspoolError, match=message):
        denoise(model, [CanvasRequest(prompt, slots, parts, CanvasOptions(**options))])  # type: ignore[arg-type]
    assert not model.sessions


@pytest.mark.parametrize(
    "make",
    [
        lambda: TopKOptions(0),
        lambda: TopKOptions(1, "best"),  # type: ignore[arg-type]
        lambda: FixedBlocksOptions(0),
        lambda: FactorOptions(0),
        lambda: LocalLeapOptions(0.5, 0.6),
        lambda: LocalLeapOptions(radius=-1),
        lambda: CreditOptions(alpha=-1),
        lambda: CreditOptions(beta=1.5),
        lambda: CreditOptions(gamma=0),
        lambda: CreditOptions(kept=0),
        lambda: AdaBlockOptions([]),
        lambda: AdaBlockOptions([1], block_length=0),
        lambda: AdaBlockOptions([1], window="far"),  # type: ignore[arg-type]
        lambda: CanvasOptions(temperature=-1),
        lambda: CanvasOptions(cache="all"),  # type: ignore[arg-type]
        lambda: CanvasOptions(truncate_at_eos=-0.1),
        lambda: CanvasOptions(truncate_at_eos=1.1),
        lambda: CanvasOptions(guidance_scale=-1),
        lambda: CanvasOptions(guidance_scale=INFINITY),
    ],
)
def test_options_that_make_no_sense(make: Callable[[], object]) -> None:
    with pytest.raises(UnspoolError):
        make()
