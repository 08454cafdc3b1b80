"""Deliberately broken sessions, rules and drafters that a proof must find."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.conformance.faults import OffByOne, PositionByIndex, RejectedKept
from unspool.backends.toy import ToySession
from unspool.engine.contracts import Decision, Scores, Target
from unspool.engine.tree import TokenTree
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.acceptance.lossless import Lossless


class Shifted(ToySession):
    """Stores the last accepted draft one position too late."""

    def commit(self, path: Sequence[int]) -> None:
        super().commit(path)
        if len(path) > 1:
            token, position = self.cache[-1]
            self.cache[-1] = (token, position + 1)


class DepthOffByOne(ToySession):
    """Drafts sit one position too late, in every tree and chain."""

    def positions(self, tree: TokenTree) -> list[int]:
        return [self.length + depth + (depth > 0) for depth in tree.depths.tolist()]


class Drifting(ToySession):
    """Drafts' logits are off by a little, in every tree and chain."""

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        scores = super().score(tree, rows)
        for row, node in enumerate(scores.rows):
            scores.logits[row, 0] += 0.05 * (node > 0)
        return scores


class SeesTheFuture(ToySession):
    """Lets each node attend to the one behind it, which it should predict."""

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        scores = super().score(tree, rows)
        for row, node in enumerate(scores.rows):
            if node + 1 < len(tree):
                scores.logits[row, tree.tokens[node + 1]] += 5
        return scores


class SiblingsSwapped(ToySession):
    """Stores the first of two siblings where the second was accepted."""

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        self._tree = tree
        return super().score(tree, rows)

    def commit(self, path: Sequence[int]) -> None:
        parents = self._tree.parents
        super().commit([self._tree.children[parents[node]][0] if node else node for node in path])


class StaleAfterRewind(ToySession):
    """Keeps one entry too many."""

    def rewind(self, length: int) -> None:
        super().rewind(length + 1)


class SharedByForks(ToySession):
    """Gives its twin its own cache instead of a copy."""

    def fork(self) -> ToySession:
        twin = super().fork()
        twin.cache = self.cache
        return twin


class SeesSibling(ToySession):
    """Lets each node attend to the sibling before it, as a wrong mask does."""

    def _logits_after(self, tree: TokenTree, node: int, entries: Sequence[tuple[int, int]]) -> np.ndarray:  # type: ignore[type-arg]
        siblings = tree.children[tree.parents[node]] if node else ()
        before = siblings.index(node) if node else 0
        seen = self.cache
        self.cache = [*seen, entries[siblings[before - 1]]] if before else seen
        logits = super()._logits_after(tree, node, entries)
        self.cache = seen
        return logits


SESSIONS = {
    "rejected token kept": RejectedKept,
    "off-by-one cache, an entry lost": OffByOne,
    "off-by-one cache, an entry shifted": Shifted,
    "wrong position, index for depth": PositionByIndex,
    "wrong position, depth off by one": DepthOffByOne,
    "sibling order": SiblingsSwapped,
    "drafts' logits drift": Drifting,
    "mask sees the future": SeesTheFuture,
    "mask sees a sibling": SeesSibling,
    "stale cache after rewind": StaleAfterRewind,
    "cache shared by forks": SharedByForks,
}
ONLY_SESSIONS_SHOW = {
    "drafts' logits drift",
    "mask sees the future",
    "stale cache after rewind",
    "cache shared by forks",
}
"""Decoding neither rewinds nor forks; and what moves the logits of every pass of several nodes is noise to it."""


class KeepsRejected(ExactMatch):
    """Keeps the first draft though plain decoding takes another token."""

    def decide(self, target: Target, rng: Callable[[], np.random.Generator]) -> Decision:
        decision = super().decide(target, rng)
        children = target.tree.children[decision.path[-1]]
        if not children:
            return decision
        return Decision((*decision.path, children[0]), target.choose(children[0]))


class TokenOfTheParent(ExactMatch):
    """Takes the last token from the node before the last accepted one."""

    def decide(self, target: Target, rng: Callable[[], np.random.Generator]) -> Decision:
        decision = super().decide(target, rng)
        return Decision(decision.path, target.choose(decision.path[max(0, len(decision.path) - 2)]))


class KeepsRejectedDraws(Lossless):
    """Takes the first draft if it is likely at all."""

    def decide(self, target: Target, rng: Callable[[], np.random.Generator]) -> Decision:
        decision = super().decide(target, rng)
        children = target.tree.children[0]
        return Decision((0, children[0]), decision.token) if children else decision
