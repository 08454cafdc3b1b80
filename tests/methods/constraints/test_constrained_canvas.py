"""The denoise loop under a grammar: every text is right, whatever decodes it, and nothing else changes."""

from __future__ import annotations

import pytest

from tests.engine.test_denoise import POLICIES, SCHEDULES, TRANSFORMS
from tests.methods.constraints.test_cfg_canvas import JSON, JSON_TEXTS, is_json
from tests.pairwise import pairwise
from unspool.conformance.canvas_model import Whatever
from unspool.engine.canvas import CanvasConstraint
from unspool.engine.canvas_request import Cache, CanvasOptions, CanvasRequest, Parts
from unspool.engine.denoise import denoise
from unspool.engine.trace import CanvasEvent, Event
from unspool.errors import UnspoolError
from unspool.methods.constraints._cfg_canvas import CFGCanvas, Slots
from unspool.methods.constraints._cfg_canvas.cfg import Grammar
from unspool.methods.diffusion.prophet import Prophet, ProphetOptions
from unspool.methods.diffusion.top_k import TopK

END, MASK = len(JSON_TEXTS), len(JSON_TEXTS) + 1
CANVAS = CFGCanvas(Grammar(JSON), [*JSON_TEXTS, None, None], END)
SLOTS = 12


class Recording:
    """A grammar that remembers what it was asked and refused."""

    def __init__(self) -> None:
        self.refused: list[tuple[int, int]] = []

    def check(self, slots: Slots) -> None:
        CANVAS.check(slots)

    def allows(self, slots: Slots, slot: int, token: int) -> bool:
        assert slots[slot] is None
        assert (slot, token) not in self.refused, "it was refused before"
        verdict = CANVAS.allows(slots, slot, token)
        if not verdict:
            self.refused.append((slot, token))
        return verdict


def decode(
    parts: Parts, slots: Slots | None = None, options: CanvasOptions | None = None, prompt: int = 0
) -> tuple[list[int], list[CanvasEvent]]:
    events: list[Event] = []
    request = CanvasRequest([prompt], slots or [None] * SLOTS, parts, options or CanvasOptions())
    (filled,) = denoise(Whatever(MASK + 1, END), [request], events.append)
    return filled, [event for event in events if isinstance(event, CanvasEvent)]


def text(slots: list[int]) -> str:
    return "".join(JSON_TEXTS[token] for token in (slots[: slots.index(END)] if END in slots else slots))


@pytest.mark.parametrize(
    ("policy", "schedule", "transforms", "cache"),
    pairwise(POLICIES, SCHEDULES, ["none", "credit"], ["none", "dual"]),
)
def test_every_text_fits(policy: str, schedule: str, transforms: str, cache: Cache) -> None:
    free = 0
    for prompt in range(2):
        for temperature in (0.0, 1.0):
            options = CanvasOptions(temperature=temperature, seed=prompt, cache=cache)
            made = (POLICIES[policy](), SCHEDULES[schedule](), TRANSFORMS[transforms]())
            constraint = Recording()
            slots, events = decode(Parts(*made, None, constraint), options=options, prompt=prompt)
            assert is_json(text(slots)), text(slots)
            assert constraint.refused
            assert all(event.committed for event in events)
            assert sorted(slot for event in events for slot in event.committed) == list(range(SLOTS))
            if END in slots:
                assert set(slots[slots.index(END) :]) == {END}
            made = (POLICIES[policy](), SCHEDULES[schedule](), TRANSFORMS[transforms]())
            free += is_json(text(decode(Parts(*made), options=options, prompt=prompt)[0]))
    assert free <= 1  # of 4


class Anything:
    """Refuses nothing."""

    def check(self, slots: Slots) -> None: ...

    def allows(self, slots: Slots, slot: int, token: int) -> bool:
        return True


@pytest.mark.parametrize("policy", POLICIES)
def test_a_run_in_which_nothing_is_refused_is_the_one_without(policy: str) -> None:
    options = CanvasOptions(temperature=0.5, seed=1, stop_at_eos=True)
    # No end tokens: the loop fills what follows them at once under a constraint.
    for prompt in range(6):
        plain, events = decode(Parts(POLICIES[policy](), SCHEDULES["whole"]()), options=options, prompt=prompt)
        if END not in plain:
            same, others = decode(
                Parts(POLICIES[policy](), SCHEDULES["whole"](), (), None, Anything()), options=options, prompt=prompt
            )
            assert same == plain
            assert [(e.committed, e.confidence) for e in others] == [(e.committed, e.confidence) for e in events]


def test_given_slots_stay_and_the_rest_fits_them() -> None:
    given: list[int | None] = [None] * SLOTS
    given[0], given[4] = JSON_TEXTS.index("["), JSON_TEXTS.index(",")
    slots, _ = decode(Parts(TopK(), SCHEDULES["whole"](), (), None, Recording()), given)
    assert (slots[0], slots[4]) == (given[0], given[4])
    assert is_json(text(slots))


def test_an_early_exit_fits_as_well() -> None:
    for prompt in range(4):
        stop = Prophet(ProphetOptions(None, -1.0, -1.0, -1.0))
        slots, events = decode(Parts(TopK(), SCHEDULES["whole"](), (), stop, Recording()), prompt=prompt)
        assert len(events) == 1
        assert is_json(text(slots)), text(slots)


def test_what_cannot_be_completed_is_refused_before_any_pass() -> None:
    given: list[int | None] = [JSON_TEXTS.index("]"), None]
    with pytest.raises(UnspoolError, match="contradict the grammar"):
        decode(Parts(TopK(), SCHEDULES["whole"](), (), None, Recording()), given)


def test_a_constraint_that_changes_its_mind_is_told_of() -> None:
    class Nothing(Anything):
        def allows(self, slots: Slots, slot: int, token: int) -> bool:
            return False

    constraint: CanvasConstraint = Nothing()
    with pytest.raises(UnspoolError, match="allows no token"):
        decode(Parts(TopK(), SCHEDULES["whole"](), (), None, constraint))
