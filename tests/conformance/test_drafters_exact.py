"""Drafters and rules that draw or report wrong are caught by summing over all that can be drawn, and all outcomes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.conformance.faults import LastTokenFromTarget, TargetNotReduced
from unspool.conformance.drafter import THREE as TOY
from unspool.conformance.drafter import THREES as PROMPT
from unspool.conformance.drafter import TOLERANCE, distance
from unspool.conformance.enumeration import Row
from unspool.conformance.stubs import RandomDrafter
from unspool.engine.assistant import Assistant, Draws
from unspool.engine.contracts import Context, Drafter, Step
from unspool.engine.noise import draft_generator, gumbel
from unspool.engine.tree import TokenTree, TreeBuilder
from unspool.methods.acceptance.lossless import Lossless


def test_random_point_masses_keep_the_distribution() -> None:
    for seed in range(10):
        assert distance(lambda seed=seed: RandomDrafter(3, seed), 1, 4) < TOLERANCE  # type: ignore[misc]


class Drawing:
    """Two siblings drawn without replacement from a draft model; what it does wrong is a subclass's."""

    def __init__(self) -> None:
        self.assistant = Assistant(TOY.related(0.7, seed=2), 3)

    def start(self, context: Context) -> None: ...

    def observe(self, step: Step) -> None: ...

    def propose(self, context: Context, budget: int) -> TokenTree:
        self.assistant.follow(context.tokens)
        logits = self.assistant.step(context.tokens[-1])
        draws = self.draws(context)
        tokens = self.siblings(draws, logits)[: budget - 1]
        builder = TreeBuilder(context.tokens[-1])
        draft = builder.drawn_from(Draws(context, 3).distribution(self.reported(draws.logprobs(logits))))
        for token in tokens:
            builder.add(0, int(token), "planted", draft=draft)
        return builder.build()

    def draws(self, context: Context) -> Draws:
        return Draws(context, 3)

    def siblings(self, draws: Draws, logits: Row) -> list[int]:
        return draws.siblings(logits, 0, 2)[0].tolist()

    def reported(self, logprobs: Row) -> Row:
        return logprobs


class OtherTemperature(Drawing):
    """Draws colder than it says."""

    def siblings(self, draws: Draws, logits: Row) -> list[int]:
        return super().siblings(draws, logits / 0.6)


class SaysOther(Drawing):
    """Says that it drew from a flat distribution."""

    def reported(self, logprobs: Row) -> Row:
        return np.full(3, -np.log(3))


class Sorted(Drawing):
    """Puts the likelier sibling first."""

    def siblings(self, draws: Draws, logits: Row) -> list[int]:
        return sorted(super().siblings(draws, logits), key=lambda token: -logits[token])


class Pruned(Drawing):
    """Drops the siblings that are less likely than a third."""

    def siblings(self, draws: Draws, logits: Row) -> list[int]:
        p = np.exp(draws.logprobs(logits))
        return [token for token in super().siblings(draws, logits) if p[token] > 1 / 3]


class Likeliest(Drawing):
    """Takes the likeliest tokens and says that it drew them."""

    def siblings(self, draws: Draws, logits: Row) -> list[int]:
        return np.argsort(-logits)[:2].tolist()


class RandomnessOfItsOwn(Drawing):
    """Draws with a generator that nobody can replay, the same numbers each round."""

    def siblings(self, draws: Draws, logits: Row) -> list[int]:
        keys = draws.logprobs(logits) + np.random.default_rng(0).gumbel(size=3)
        return np.argsort(-keys)[:2].tolist()


class RandomnessOfTheRequest(Drawing):
    """Draws with the same noise in each round."""

    def siblings(self, draws: Draws, logits: Row) -> list[int]:
        keys = draws.logprobs(logits) + draft_generator(6, len(PROMPT)).gumbel(size=3)
        return np.argsort(-keys)[:2].tolist()


class NoiseOfThePosition(Drawing):
    """Draws where the noise that decides beside draws says so."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        if gumbel(context.seed, len(context.tokens), 3).argmax() == 0:
            return TokenTree.chain([context.tokens[-1], 0])
        return super().propose(context, budget)


def test_what_is_drawn_and_said_right_passes() -> None:
    for at in (0, 2):
        assert distance(Drawing, at, 3) < TOLERANCE


@pytest.mark.parametrize("fault", [OtherTemperature, SaysOther, Sorted, Pruned, Likeliest, RandomnessOfItsOwn])
def test_untrue_drafts_are_caught(fault: Callable[[], Drafter]) -> None:
    assert distance(fault, 2, 3) > 1e-3


@pytest.mark.parametrize(
    ("fault", "message"), [(RandomnessOfTheRequest, "another round"), (NoiseOfThePosition, "noise of positions")]
)
def test_randomness_that_is_not_the_rounds_own_is_caught(fault: Callable[[], Drafter], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        distance(fault, 2, 3)


@pytest.mark.parametrize("rule", [LastTokenFromTarget(), TargetNotReduced()])
def test_wrong_rules_are_caught(rule: Lossless) -> None:
    assert distance(Drawing, 0, 3, rule) > 1e-3
