"""Deliberately wrong rules, drafters, samplers and caches. The suite must catch every one, switched on alone (T7)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tests.conformance.harness import SampledDrafter, Sampler, stochastic_beam
from unspool.backends.toy import ToyModel, ToySession
from unspool.conformance.enumeration import (
    Drawn,
    Node,
    Row,
    Siblings,
    Text,
    build,
    drawn_then_retrieval,
    independent,
    no_replacement,
    top,
)
from unspool.engine import noise
from unspool.engine.contracts import Context, Target
from unspool.engine.taps import Taps
from unspool.engine.tree import POINT_MASS, DraftDistribution, TokenTree
from unspool.methods.acceptance._exact_match import choose_child
from unspool.methods.acceptance.lossless import Chance, Lossless

# Wrong rules.


class TargetNotReduced(Lossless):
    """Tests every sibling against the whole target; only the last residual is right."""

    def test_siblings(self, p: Row, tree: TokenTree, node: int, chance: Chance) -> tuple[int | None, Row]:
        r = p
        for child in tree.children[node]:
            q = tree.distributions[tree.drafts[child]].q
            if chance.accept(min(1.0, p[tree.tokens[child]] / q[tree.tokens[child]])):
                return child, p
            r = np.maximum(p - q, 0)
        return None, r / r.sum()


class LastTokenFromTarget(Lossless):
    """Emits the last token from the target instead of the residual."""

    def test_siblings(self, p: Row, tree: TokenTree, node: int, chance: Chance) -> tuple[int | None, Row]:
        child, _ = super().test_siblings(p, tree, node, chance)
        return child, p


class IndependentDrawsShrunk(Lossless):
    """Takes tested siblings out of q although they were drawn independently; a second copy is then always accepted."""

    def test_siblings(self, p: Row, tree: TokenTree, node: int, chance: Chance) -> tuple[int | None, Row]:
        r, q = p, tree.distributions[0].q
        for child in tree.children[node]:
            token = tree.tokens[child]
            if chance.accept(1.0 if q[token] == 0 else min(1.0, r[token] / q[token])):
                return child, r
            left = np.maximum(r - q, 0)
            r = left / left.sum() if left.any() else r
            q = q.copy()
            q[token] = 0
            q = q / q.sum() if q.any() else q
        return None, r


class MismatchedSampleDiscarded(Lossless):
    """Point masses: a sample that no child holds is thrown away, and the token is drawn anew from the target."""

    def decide_node(self, target: Target, node: int, chance: Chance) -> tuple[int | None, int]:
        child, _ = choose_child(target, node)
        return (child, target.tree.tokens[child]) if child else (None, chance.draw(target.probabilities(node)))


class SamplePerPath(Lossless):
    """Point masses: every path draws its own sample at a node that the paths share."""

    def decide_node(self, target: Target, node: int, chance: Chance) -> tuple[int | None, int]:
        sample = None
        for child in target.tree.children[node]:
            sample = chance.draw(target.probabilities(node))
            if sample == target.tree.tokens[child]:
                return child, sample
        return None, chance.draw(target.probabilities(node)) if sample is None else sample


class ChosenByNoiseThenDrawn(Lossless):
    """Mixed siblings: follows the noise where it meets a chosen child, else tests the draws as if nothing was known."""

    def decide_node(self, target: Target, node: int, chance: Chance) -> tuple[int | None, int]:
        if target.tree.children[node]:
            child, token = choose_child(target, node)
            if child is not None and target.tree.drafts[child] == POINT_MASS:
                return child, token
        return super().decide_node(target, node, chance)


# Drafters that draw right and report or keep wrong.


def shrinking_not_reported(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    distribution = DraftDistribution(q, replacement=True)
    for drawn, weight in no_replacement(q, count, text):
        yield [(token, distribution) for token, _ in drawn], weight


def deduplicated_as_independent(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    for drawn, weight in independent(q, count, text):
        yield list(dict(drawn).items()), weight


def sorted_by_probability(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    for drawn, weight in no_replacement(q, count, text):
        yield sorted(drawn, key=lambda sibling: -q[sibling[0]]), weight


def top_as_drawn(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    distribution = DraftDistribution(q, replacement=False)
    for drawn, weight in top(q, count, text):
        yield [(token, distribution) for token, _ in drawn], weight


def other_temperature(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    colder = q ** (1 / 0.6)
    distribution = DraftDistribution(q, replacement=False)
    for drawn, weight in no_replacement(colder / colder.sum(), count, text):
        yield [(token, distribution) for token, _ in drawn], weight


def unlikely_removed(q: Row, count: int, text: Text) -> Iterator[tuple[Drawn, float]]:
    for drawn, weight in no_replacement(q, count, text):
        yield [sibling for sibling in drawn if q[sibling[0]] >= 0.05], weight


class RuleFault(NamedTuple):
    """A fault at one node, with the total variation that the card found for 5 tokens and 3 siblings."""

    rule: Lossless
    siblings: Siblings
    count: int
    card_far: float
    card_close: float


RULE_FAULTS = {
    "C drawn, q not shrunk": RuleFault(Lossless(), shrinking_not_reported, 3, 0.176, 0.0006),
    "B drawn, q shrunk": RuleFault(IndependentDrawsShrunk(), independent, 3, 0.624, 0.033),
    "B de-duplicated, verified as B": RuleFault(Lossless(), deduplicated_as_independent, 3, 0.050, 0.0006),
    "B target not reduced between siblings": RuleFault(TargetNotReduced(), independent, 3, 0.157, 0.052),
    "last token from p": RuleFault(LastTokenFromTarget(), no_replacement, 1, 0.068, 0.049),
    "C re-sorted by q": RuleFault(Lossless(), sorted_by_probability, 3, 0.256, 0.391),
    "top-K verified as C": RuleFault(Lossless(), top_as_drawn, 3, 0.480, 0.613),
    "C drafted at another temperature": RuleFault(Lossless(), other_temperature, 3, 0.112, 0.056),
    "C low-q children removed": RuleFault(Lossless(), unlikely_removed, 3, 0.085, 0.0),
    "A mismatched sample discarded": RuleFault(MismatchedSampleDiscarded(), top, 3, 0.247, 0.216),
    "A one sample per path": RuleFault(SamplePerPath(), top, 3, 0.231, 0.170),
    "M noise first, then draws": RuleFault(ChosenByNoiseThenDrawn(), drawn_then_retrieval, 3, 0.2, 0.2),
}

# Faults of whole trees and rounds.


def _nodes(tree: TokenTree) -> list[Node]:
    return [
        (token, parent, None if draft == POINT_MASS else tree.distributions[draft])
        for token, parent, draft in zip(tree.tokens, tree.parents, tree.drafts, strict=True)
    ]


def _rearranged(tree: TokenTree, order: Sequence[int]) -> TokenTree:
    """The nodes ``order`` of a tree, in that order; parents must come before their children."""
    nodes = _nodes(tree)
    place = {old: new for new, old in enumerate(order)} | {-1: -1}
    return build([(nodes[i][0], place[nodes[i][1]], nodes[i][2]) for i in order])


def shuffled_beam(draft: ToyModel, text: Text, rng: np.random.Generator) -> TokenTree:
    """Stochastic beam search whose siblings lose their perturbed order."""
    tree = stochastic_beam(3, 2)(draft, text, rng)
    order = sorted(rng.permutation(len(tree)).tolist(), key=lambda node: int(tree.depths[node]))
    return _rearranged(tree, order)


def pruned_after_drawing(draft: ToyModel, text: Text, rng: np.random.Generator) -> TokenTree:
    """Like DySpec with a wrong end: the least likely half of the leaves is dropped after it was drawn."""
    tree = stochastic_beam(3, 2)(draft, text, rng)
    weights = [1.0]
    for node in range(1, len(tree)):
        weights.append(weights[tree.parents[node]] * float(tree.distributions[tree.drafts[node]].q[tree.tokens[node]]))
    leaves = sorted((node for node in range(len(tree)) if not tree.children[node]), key=lambda node: weights[node])
    dropped = set(leaves[: len(leaves) // 2])
    return _rearranged(tree, [node for node in range(len(tree)) if node not in dropped])


def dynamic_tree_as_drawn(draft: ToyModel, text: Text, rng: np.random.Generator) -> TokenTree:
    """The tree of EAGLE-2, chosen by path probability and not drawn, verified as draws without replacement."""
    nodes: list[Node] = [(text[-1], -1, None)]
    beam = [(1.0, 0, text)]
    for _ in range(2):
        candidates = []
        for weight, node, path in beam:
            q = draft.probabilities(path)
            distribution = DraftDistribution(q, replacement=False)
            candidates += [(weight * float(q[token]), node, (*path, token), distribution) for token in range(len(q))]
        candidates.sort(key=lambda candidate: -candidate[0])
        beam = []
        for weight, node, path, distribution in candidates[:3]:
            beam.append((weight, len(nodes), path))
            nodes.append((path[-1], node, distribution))
    return build(nodes)


class NoisePerSequence(SampledDrafter):
    """Draws the randomness of a tree once per request and uses it again in every round."""

    def __init__(self, draft: ToyModel, sampler: Sampler) -> None:
        super().__init__(draft, sampler)
        self._seed = 0

    def start(self, context: Context) -> None:
        self._seed = context.seed

    def propose(self, context: Context, budget: int) -> TokenTree:
        self._rng = np.random.default_rng(self._seed)
        return super().propose(context, budget)


class KindByNoise(SampledDrafter):
    """Drafts with the noise of the position: what it shows is chosen if it is token 0, else a tree is drawn."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        p = self._draft.probabilities(context.tokens)
        token = noise.draw(np.log(p), context.seed, len(context.tokens), len(p), np.arange(len(p)))
        if token == 0:
            return TokenTree.chain((context.tokens[-1], token))
        return super().propose(context, budget)


def generator_per_sequence(seed: int, position: int) -> np.random.Generator:
    """The rule's randomness without the position: every round gets the same."""
    return noise.rule_generator(seed, 0)


TREE_FAULTS: dict[str, Sampler] = {
    "SBS order shuffled": shuffled_beam,
    "child pruned after drawing": pruned_after_drawing,
    "EAGLE-2 tree verified as C": dynamic_tree_as_drawn,
}

# Faults of the cache.


class OffByOne(ToySession):
    """Forgets the entry of the last accepted node."""

    def commit(self, path: Sequence[int]) -> None:
        super().commit(path[:-1] if len(path) > 1 else path)


class RejectedKept(ToySession):
    """Keeps the entry of a rejected node after the accepted ones."""

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None):  # type: ignore[no-untyped-def]
        self._nodes = len(tree)
        return super().score(tree, rows)

    def commit(self, path: Sequence[int]) -> None:
        rejected = [node for node in range(self._nodes) if node not in path]
        super().commit([*path, *rejected[:1]])


class PositionByIndex(ToySession):
    """Takes the index of a node for its depth."""

    def positions(self, tree: TokenTree) -> list[int]:
        return [self.length + node for node in range(len(tree))]


class StaleAfterRewind(ToySession):
    """Moves its length back but leaves the entries where they are."""

    _rewound: int | None = None

    @property
    def length(self) -> int:
        return super().length if self._rewound is None else self._rewound

    def rewind(self, length: int) -> None:
        self._rewound = length


@dataclass
class FaultyModel:
    """Opens faulty sessions on a toy model."""

    model: ToyModel
    session: type[ToySession]

    def open(self, taps: Taps | None = None) -> ToySession:
        return self.session(self.model)


CACHE_FAULTS = {
    "off-by-one cache": OffByOne,
    "rejected token kept": RejectedKept,
    "wrong position": PositionByIndex,
}
