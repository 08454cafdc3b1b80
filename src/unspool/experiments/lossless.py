"""The lossless rule: drafts drawn from any distribution leave the output's distribution as it is, exactly.

On pairs of toy models over three tokens, every draft and every outcome of the rule is summed in float64, for chains
and trees, drawn in eight ways. The distance from plain sampling must be rounding error. The same sum must detect rules
and drafters with planted faults.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from unspool.conformance.enumeration import (
    DRAWS,
    SHAPES,
    Drawn,
    Row,
    Siblings,
    Text,
    joint,
    no_replacement,
    top,
    total_variation,
    trees,
)
from unspool.conformance.pairs import KINDS, pair
from unspool.engine.contracts import Target
from unspool.engine.tree import DraftDistribution, TokenTree
from unspool.methods.acceptance.lossless import Chance, Lossless
from unspool.reproduce import experiment as base
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Summary, Table
from unspool.reproduce.setup import Setup

LENGTH = 3
VOCABULARY = 3
PROMPT: Text = (0,)


class LikelyAccepted(Lossless):
    """Accepts whatever the target finds likely enough, as typical acceptance does."""

    def test_siblings(self, p: Row, tree: TokenTree, node: int, chance: Chance) -> tuple[int | None, Row]:
        likely = [child for child in tree.children[node] if p[tree.tokens[child]] >= 0.2]
        return (likely[0], p) if likely else super().test_siblings(p, tree, node, chance)


class LastTokenFromTarget(Lossless):
    """Draws the token after a rejection from the target instead of the residual."""

    def test_siblings(self, p: Row, tree: TokenTree, node: int, chance: Chance) -> tuple[int | None, Row]:
        child, _ = super().test_siblings(p, tree, node, chance)
        return child, p


class TargetNotReduced(Lossless):
    """Tests every sibling against the whole target; the residual of the last one is right."""

    def test_siblings(self, p: Row, tree: TokenTree, node: int, chance: Chance) -> tuple[int | None, Row]:
        r = p
        for child in tree.children[node]:
            q, token = tree.distributions[tree.drafts[child]].q, tree.tokens[child]
            if chance.accept(min(1.0, float(p[token] / q[token]))):
                return child, p
            r = np.maximum(p - q, 0)
        return None, r / r.sum()


class Resampled(Lossless):
    """Throws a sample away that no child holds, and draws another one."""

    def decide_node(self, target: Target, node: int, chance: Chance) -> tuple[int | None, int]:
        child, token = super().decide_node(target, node, chance)
        return (child, token) if child is not None else (None, chance.draw(target.probabilities(node)))


def reported_as_independent(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    """Draws without replacement and says that each was drawn from all tokens."""
    distribution = DraftDistribution(q, replacement=True)
    for drawn, weight in no_replacement(q, count, text):
        yield [(token, distribution) for token, _ in drawn], weight


RIGHT = "lossless"
PLANTED: dict[str, tuple[Lossless, Siblings]] = {
    "likely tokens accepted": (LikelyAccepted(), no_replacement),
    "last token from the target": (LastTokenFromTarget(), no_replacement),
    "target not reduced": (TargetNotReduced(), no_replacement),
    "sample discarded": (Resampled(), top),
    "draws without replacement tested as independent": (Lossless(), reported_as_independent),
}
BIASED_ON = ("far", "close")
"""Kinds of pairs on which the planted faults are summed over; without tokens of probability 0."""


def cases(setup: Setup) -> list[Case]:
    """A case is a kind of pair: all ways to draw and all trees, and on some the planted faults."""

    def measure(kind: str) -> list[base.Row]:
        target, draft = pair(kind, VOCABULARY)
        exact = target.distribution(LENGTH, PROMPT)
        tried = {(RIGHT, name): (Lossless(), siblings) for name, siblings in DRAWS.items()}
        if kind in BIASED_ON:
            tried |= {(name, "planted"): fault for name, fault in PLANTED.items()}
        made: list[base.Row] = []
        for (rule, draws), (acceptance, siblings) in tried.items():
            for shape in list(SHAPES)[: setup.pick(None, 2)]:
                output = joint(acceptance, target, PROMPT, trees(draft, PROMPT, SHAPES[shape], siblings), LENGTH)
                distance = total_variation(output, exact)
                made.append({"rule": rule, "draws": draws, "tree": shape, "distance": distance})
        return made

    kinds = setup.pick(KINDS, BIASED_ON)
    return [Case(kind, partial(measure, kind)) for kind in kinds]


def summarise(rows: Sequence[base.Row]) -> Summary:
    """The largest distance of the rule, and of each fault that of the pair on which it shows most."""
    by: dict[str, list[float]] = {}
    for row in rows:
        by.setdefault(row["rule"], []).append(row["distance"])
    figures = {"largest distance, lossless": Figure(max(by[RIGHT]), count=len(by[RIGHT]))}
    figures |= {f"largest distance, {name}": Figure(max(by[name]), count=len(by[name])) for name in PLANTED}
    lines = [(name, f"{max(found):.2g}", f"{min(found):.2g}", str(len(found))) for name, found in by.items()]
    return Summary(figures, [Table("total variation from plain sampling", ("rule", "largest", "least", "sums"), lines)])


EXPERIMENT = Experiment(
    methods=("lossless",),
    claim="Rejection sampling over drafts, single ones and trees, leaves the output's distribution exactly that of "
    "plain sampling.",
    control="four rules and a drafter with a planted fault, each of which must be caught",
    test="exact sums over all drafts and outcomes: nine pairs of toy models over 3 tokens, eight ways to draw, four "
    "trees, texts of 3 tokens",
    cases=cases,
    summarise=summarise,
    requires=[Expect(f"largest distance, {name}", at_least=0.01) for name in PLANTED],
    expects=[Expect("largest distance, lossless", at_most=1e-12)],
    model="toy",
    quick_model="toy",
    count=1,
    minutes=2,
)
