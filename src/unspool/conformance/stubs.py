"""Drafters with the best and the worst drafts: with none of them may a rule accept a wrong token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unspool.conformance.enumeration import Node, build
from unspool.engine.contracts import Context, Step
from unspool.engine.tree import TokenTree


class _Stateless:
    """The parts of a drafter that keeps nothing."""

    def start(self, context: Context) -> None:
        pass

    def observe(self, step: Step) -> None:
        pass


class EmptyDrafter(_Stateless):
    """Drafts nothing: plain decoding."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        return TokenTree.chain(context.tokens[-1:])


class OracleDrafter(_Stateless):
    """Drafts the true continuation as a chain.

    Args:
        text: all ids, prompt and continuation.
    """

    def __init__(self, text: Sequence[int]) -> None:
        self._text = tuple(text)

    def propose(self, context: Context, budget: int) -> TokenTree:
        start = len(context.tokens) - 1
        return TokenTree.chain(self._text[start : start + budget] or context.tokens[-1:])


class EosDrafter(_Stateless):
    """Drafts the true continuation as far as it is known, then the end-of-text token until the budget is used.

    With a continuation that plain decoding takes beyond its end of text, a whole accepted draft goes on after the end.
    """

    def __init__(self, eos_token_id: int, text: Sequence[int] = ()) -> None:
        self._eos = eos_token_id
        self._text = tuple(text)

    def propose(self, context: Context, budget: int) -> TokenTree:
        known = self._text[len(context.tokens) :][: budget - 1]
        return TokenTree.chain((context.tokens[-1], *known, *[self._eos] * (budget - 1 - len(known))))


class RandomDrafter:
    """Random trees of random tokens as point masses, siblings distinct; every tree uses the whole budget it can."""

    def __init__(self, vocab_size: int, seed: int = 0) -> None:
        self._vocab_size = vocab_size
        self._seed = seed
        self._rng = np.random.default_rng(seed)

    def start(self, context: Context) -> None:
        self._rng = np.random.default_rng([self._seed, context.seed & 0xFFFFFFFF])

    def propose(self, context: Context, budget: int) -> TokenTree:
        nodes: list[Node] = [(context.tokens[-1], -1, None)]
        taken: set[tuple[int, int]] = set()
        for _ in range(budget - 1):
            # Parents from the newest nodes, so that trees get deep as well as wide.
            parent = int(self._rng.integers(max(0, len(nodes) - 3), len(nodes)))
            free = [t for t in range(self._vocab_size) if (parent, t) not in taken]
            if not free:
                continue
            token = int(self._rng.choice(free))
            taken.add((parent, token))
            nodes.append((token, parent, None))
        return build(nodes)

    def observe(self, step: Step) -> None:
        pass
