"""DySpec: "DySpec: Faster Speculative Decoding with Dynamic Token Tree Structure" (2024).

A draft model samples a tree that grows, draw by draw, where the next draw has the highest probability of being reached.

The draft probability of a token serves as an estimate of its acceptance probability. The value v of a draw is then the
probability that it is tested: the product of R[y] over the drafts that lead to it and of 1 - R[y] over the siblings
before it, where R is the draft's distribution without those siblings. Whether to draw is decided before the token is
known, and every drawn token stays, so the draws remain unbiased.

Two ways to spend nodes. By default the draw of the largest value is next, until ``num_assistant_tokens`` nodes are
drawn (the paper's algorithm 1). With a ``threshold``, every draw whose value reaches it is made, level by level
(algorithm 2): one pass of the draft model per level, which is what the paper runs in practice.

What it changes about plain decoding: one pass of the target yields several of its tokens. Guarantee: the same
distribution under the lossless rule; identical under the greedy and the same-noise rule.

Choices where the paper leaves one, and changes:
- Algorithm 1 runs the draft model for every node. Here it runs when the first child of a node is to be drawn, and then
  for all nodes that it has not seen. The draws are the same, with fewer passes.
- A threshold needs a bound too: draws stop at ``num_assistant_tokens`` nodes.
- At a target temperature of 0 the paper still draws. Here siblings are the highest-probability tokens, best first,
  which the greedy rule accepts more often. Under the same-noise rule they are drawn with the position's noise. Values
  are those of ``draft_temperature`` in every case.
- Of equal values the oldest is drawn first, a sibling before a child.

Left out: reordering the nodes for block-sparse attention, which pays off for trees of several hundred nodes.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unspool.engine.assistant import Assistant, Draws
from unspool.engine.contracts import Context, LanguageModel, Logits, Step
from unspool.engine.method import DRAFTER, Method, Needs
from unspool.engine.numeric import log_softmax, top_k
from unspool.engine.option import Options, option
from unspool.engine.tree import TokenTree, TreeBuilder
from unspool.methods.drafters._assisted import assisted


@dataclass(frozen=True)
class DySpecOptions(Options):
    """Defaults are the paper's.

    Attributes:
        num_assistant_tokens: most drafted nodes of a tree, at least 1.
        draft_temperature: temperature that drafts are drawn at, above 0, whatever the target's.
        threshold: draw level by level wherever the value is at least this, in (0, 1]; about 1 / num_assistant_tokens
            fills a tree of that size. None: draw by the largest value.
    """

    num_assistant_tokens: int = option(64, least=1)
    draft_temperature: float = option(0.6, above=0)
    threshold: float | None = option(None, above=0, most=1)


class _Growth:
    """A growing tree, with the tokens that can still be drawn at each of its nodes.

    Args:
        size: most drafted nodes.
        levels: greatest depth of a node.
    """

    def __init__(self, assistant: Assistant, draws: Draws, options: DySpecOptions, root: int, size: int, levels: int):
        self.builder = TreeBuilder(root)
        self._assistant = assistant
        self._draws = draws
        self._temperature = options.draft_temperature
        self._size = size
        self._levels = levels
        self._depths = [0]
        self._logits: dict[int, Logits] = {}  # of scored nodes without children
        self._siblings: dict[int, _Siblings] = {}

    @property
    def max_depth(self) -> int:
        """Number of nodes that can still be drawn."""
        return self._size + 1 - len(self.builder)

    def can_have_children(self, node: int) -> bool:
        """Whether a child of ``node`` can still be drawn, if there is room."""
        known = self._siblings.get(node)
        return bool(known.pending) if known else self._depths[node] < self._levels

    def score(self, nodes: list[int]) -> None:
        """One pass of the draft model for ``nodes`` (ascending), so that their children can be drawn."""
        # The session overwrites these scores with its next ones.
        self._logits |= zip(nodes, self._assistant.score(self.builder.build(), nodes).copy(), strict=True)

    def scored(self, node: int) -> bool:
        return node in self._logits or node in self._siblings

    def draw(self, node: int) -> tuple[int, float]:
        """Add the next child of ``node``; returns it and its R, its probability among the tokens not drawn before."""
        siblings = self._siblings.get(node)
        if siblings is None:
            siblings = self._siblings[node] = self._start(node)
        token, share = siblings.draw()
        self._depths.append(self._depths[node] + 1)
        return self.builder.add(node, token, DySpec.name, draft=siblings.draft), share

    def _start(self, node: int) -> _Siblings:
        logprobs = log_softmax(self._logits.pop(node).astype(np.float64) / self._temperature)
        # All draws are ordered here (Gumbel top-k); whether one is made depends only on those before it.
        keys = logprobs + self._draws.noise(self._depths[node])
        tokens = top_k(keys[None], self.max_depth)[0][0]
        q = np.exp(logprobs[tokens])
        pending = [(token, share) for token, share in zip(tokens.tolist(), q.tolist(), strict=True) if share > 0]
        return _Siblings(pending[::-1], self.builder.drawn_from(self._draws.distribution(logprobs)))


@dataclass
class _Siblings:
    """The children of one node.

    Attributes:
        pending: those not drawn yet, the next one last: token, and probability before the first draw.
        draft: handle of the distribution that they are drawn from.
        mass: probability of all tokens not drawn yet.
    """

    pending: list[tuple[int, float]]
    draft: int
    mass: float = 1.0

    def draw(self) -> tuple[int, float]:
        token, q = self.pending.pop()
        share = q / self.mass if q < self.mass else 1.0  # rounding may leave less mass than the last tokens have
        self.mass -= q
        return token, share


class DySpec:
    """A tree drawn best first, or above a threshold, from a draft model.

    Args:
        model: the draft model.
        vocab_size: of the target.
    """

    name = "dyspec"

    def __init__(self, options: DySpecOptions, model: LanguageModel, vocab_size: int) -> None:
        self.options = options
        self._assistant = Assistant(model, vocab_size)
        self._vocab_size = vocab_size

    def start(self, context: Context) -> None:
        """Does nothing: the draft model reads the prompt with the first draft."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        """A tree of at most ``min(budget, num_assistant_tokens + 1)`` nodes."""
        size = min(budget - 1, self.options.num_assistant_tokens)
        levels = self._assistant.levels(context.tokens)
        draws = Draws(context, self._vocab_size)
        growth = _Growth(self._assistant, draws, self.options, context.tokens[-1], size, levels)
        if size > 0 and levels > 0:
            self._assistant.follow(context.tokens)
            if self.options.threshold is None:
                _best_first(growth)
            else:
                _above(growth, self.options.threshold)
        return growth.builder.build()

    def first_ranking(self, k: int) -> Sequence[int] | None:
        """The ``k`` ids that the draft model ranks highest for the token after the text; None if it did not run."""
        return self._assistant.first_ranking(k)

    def observe(self, step: Step) -> None:
        """Does nothing: the next draft starts from the longest prefix that the committed text shares with the last."""


def _best_first(growth: _Growth) -> None:
    """Algorithm 1. A heap entry is a draw: its value, its order of arrival, the parent."""
    entries = itertools.count()
    heap = [(-1.0, next(entries), 0)]
    unscored = [0]
    while heap and growth.max_depth:
        value, _, node = heapq.heappop(heap)
        if not growth.scored(node):
            growth.score(unscored)
            unscored = []
        child, share = growth.draw(node)
        if growth.can_have_children(node):
            heapq.heappush(heap, (value * (1 - share), next(entries), node))
        if growth.can_have_children(child):
            heapq.heappush(heap, (value * share, next(entries), child))
            unscored.append(child)


def _above(growth: _Growth, threshold: float) -> None:
    """Algorithm 2. A layer contains the nodes whose first draw reaches the threshold, with its value."""
    layer = [(0, 1.0)]
    while layer and growth.max_depth:
        growth.score([node for node, _ in layer])
        below = []
        for node, first in layer:
            value = first
            while value >= threshold and growth.can_have_children(node) and growth.max_depth:
                child, share = growth.draw(node)
                if value * share >= threshold and growth.can_have_children(child):
                    below.append((child, value * share))
                value *= 1 - share
        layer = below


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary="Samples a tree from a draft model, always growing where the next draw is most likely to be reached.",
    paper="DySpec: Faster Speculative Decoding with Dynamic Token Tree Structure (2024)",
    options=DySpecOptions,
    build=assisted(DySpec),
    needs=Needs(assistant=True),
    draws=True,
)
