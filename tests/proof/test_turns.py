"""Every pass of a proof or of a training has its turn, so that other threads may decode with the model meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from unspool import Model, UnspoolError, methods
from unspool.conformance.passes import at_once, one_by_one
from unspool.conformance.small_model import CountedModel, CountedSession, load
from unspool.engine.contracts import Ability, Scores
from unspool.engine.method import DRAFTER
from unspool.engine.progress import silent
from unspool.engine.taps import OUTPUT, Taps
from unspool.engine.tree import TokenTree
from unspool.engine.turns import turn
from unspool.methods.acceptance.lossless import Lossless
from unspool.methods.drafters.specdec_pp.data import DataOptions, examples
from unspool.methods.search.adadec.train import teacher_forced
from unspool.proof import session
from unspool.proof.case import Case
from unspool.proof.distribution import two_samples
from unspool.proof.rounding import NoiseMeter

IDS = [3, 4, 5, 6]
CASES = [Case(0, IDS, 0, [7, 8, 9, 3, 4, 5, 6, 7], [1.0] * 8)]


class WatchedSession(CountedSession):
    """Notes passes outside of turns, and lets every pass overwrite what those before returned."""

    model: WatchedModel

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        try:
            with turn(self.model):
                self.model.outside += 1
        except UnspoolError:  # this thread has the turn
            pass
        scores = super().score(tree, rows)
        memory = self.model.memory
        memory[: len(scores.logits)] = scores.logits
        hidden = scores.logits[:, :4].astype(np.float32)
        return Scores(memory[: len(scores.logits)], scores.rows, scores.ms, hidden={OUTPUT: hidden})


class WatchedModel(CountedModel):
    abilities = CountedModel.abilities | {Ability.HIDDEN_STATES}

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.outside = 0
        self.memory = np.empty((256, self.vocab_size))

    def open(self, taps: Taps | None = None) -> WatchedSession:
        return WatchedSession(self)

    def score_many(self, sessions: Any, trees: Any, rows: Any = None) -> list[Scores]:
        wanted = rows or [None] * len(sessions)
        return [one.score(tree, picked) for one, tree, picked in zip(sessions, trees, wanted, strict=True)]


def sampled(model: Model) -> dict[str, Any]:
    resources = model.resources({})
    assert model.assistant is not None
    return two_samples(
        model.language_model,
        [IDS],
        lambda: methods.build("draft_model", DRAFTER, resources),
        Lossless(),
        1.0,
        0,
        "draws",
        silent,
        [model.assistant.language_model],
    )


def measured(model: Model) -> float:
    meter = NoiseMeter(model.language_model, 0.0)
    meter.measure(CASES[0])
    return meter.limit


def checked(model: Model) -> dict[str, Any]:
    meter = NoiseMeter(model.language_model, 0.0)
    meter.measure(CASES[0])
    return session.check(meter, CASES).details


def told(model: Model) -> list[Any]:
    made = examples(model, "ab=1, x(ab", 0, DataOptions(max_new_tokens=12))
    return [made.hidden.tolist(), made.labels.tolist()]


WORK: dict[str, Callable[[Model], Any]] = {
    "one by one": lambda model: [row.tolist() for row in one_by_one(model.language_model, IDS, CASES[0].token_ids)],
    "at once": lambda model: [row.tolist() for row in at_once(model.language_model, IDS, CASES[0].token_ids)],
    "noise": measured,
    "sessions": checked,
    "draws": sampled,
    "threshold": lambda model: teacher_forced(model.language_model, IDS * 5, 2),
    "acceptance data": told,
}


def watched() -> Model:
    model = load(0, WatchedModel(0))
    model.assistant = load(1, WatchedModel(1))
    return model


@pytest.mark.parametrize("name", WORK)
def test_no_pass_is_outside_of_a_turn(name: str) -> None:
    model = watched()
    WORK[name](model)
    assert model.assistant is not None
    for one in (model.language_model, model.assistant.language_model):
        assert isinstance(one, WatchedModel) and one.outside == 0


@pytest.mark.parametrize("name", WORK)
def test_another_thread_changes_nothing(name: str) -> None:
    expected = WORK[name](watched())
    model = watched()
    over = threading.Event()

    def decode() -> None:
        while not over.is_set():
            model.generate("count count", max_new_tokens=8, method="plain", temperature=0.8)

    thread = threading.Thread(target=decode)
    thread.start()
    try:
        assert WORK[name](model) == expected
    finally:
        over.set()
        thread.join()
