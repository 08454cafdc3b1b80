"""Accelerated Test-Time Scaling with Model-Free Speculative Sampling (2025): STAND, drafts drawn from n-gram counts.

After each 4-, 3- and 2-gram of committed text STAND remembers the mean of the target's distributions there. It drafts
from the longest n-gram that matches: *drawn* without replacement (Gumbel top-k), along a fixed tree that was learned
from accepted drafts. Made for many samples of one problem, which share the memory.

What it changes about plain decoding: one pass yields several of its tokens. Guarantee: identical under the greedy rule
(the highest-probability tokens are drafted) and the same-noise rule (drafts are drawn with the noise of the position,
as in plain decoding), same distribution under the lossless rule, which receives the distributions that drafts were
drawn from.

Choices where the paper leaves one, or where it was not fully available:
- It learns from committed positions, not from rejected nodes. It learns the distribution after temperature and
  truncation, as it is drawn from, and at temperature 0 the distribution at temperature 1.
- The n-grams are those of 4, 3 and 2 tokens; with ``orders=(4, 3, 2, 1)`` it falls back to single tokens too.
- The published tree of 80 nodes is not public; ``TEMPLATE`` was learned in the same way, see ``template``.
- Noise is drawn on demand. The paper's pool of noise saves kernel launches on a GPU.
- The memory is bounded; the n-gram updated longest ago is evicted.

Left out: learning from the prompt, whose logits the loop does not keep.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import Context, Step
from unspool.engine.method import DRAFTER, Method
from unspool.engine.noise import draft_generator, gumbel_of
from unspool.engine.option import Options, option
from unspool.engine.tree import POINT_MASS, DraftDistribution, TokenTree, TreeBuilder
from unspool.methods.drafters.stand.memory import KEPT, ORDERS, Entry, NGramMemory, check_orders
from unspool.methods.drafters.stand.template import TEMPLATE, Path

_LEVELS = 4


@dataclass(frozen=True)
class StandOptions(Options):
    """Defaults are the paper's.

    Attributes:
        nodes: most drafted nodes of a tree, 1 to 80, without the root.
        orders: lengths of the n-grams to remember and look up, longest first, each at least 1.
    """

    nodes: int = option(len(TEMPLATE), least=1, most=len(TEMPLATE))
    orders: tuple[int, ...] = ORDERS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_orders(self.orders)


class Stand:
    """A template filled from an ``NGramMemory``.

    The bucket of a node is the length of the n-gram, whether the node is a first child, and the remembered probability
    in four steps.

    Args:
        options: see ``StandOptions``.
        memory: read and written; shared by the samples of a problem.
        vocab_size: width of the model's row of logits.
        template: most likely node first, every prefix a tree whose siblings come in order, such as that of
            ``learn_template``; None: the first ``nodes`` of ``TEMPLATE``.

    Raises:
        UnspoolError: if the memory was learned on another vocabulary.
    """

    name = "stand"

    def __init__(
        self, options: StandOptions, memory: NGramMemory, vocab_size: int, template: Sequence[Path] | None = None
    ) -> None:
        self.options = options
        self.memory = memory
        self._vocab_size = vocab_size
        memory.fit(vocab_size)
        template = TEMPLATE[: options.nodes] if template is None else template
        index = {path: node for node, path in enumerate(template, 1)} | {(): 0}
        self._links = [(index[path[:-1]], path[-1]) for path in template]  # (parent, place) of the nodes 1, 2, ...
        self._widths = Counter(parent for parent, _ in self._links)

    def start(self, context: Context) -> None:
        """Does nothing: the memory outlives requests, and nothing is learned from the prompt."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        """The nodes of the template that the memory can fill, as many of the first ones as fit in the budget."""
        builder = TreeBuilder(context.tokens[-1])
        draws = _Draws(context, self._vocab_size)
        longest = self.memory.orders[0]
        place = {0: 0}  # node of the template -> node of the tree
        ends = [(tuple(context.tokens[-longest:]), 0)]  # of each node of the tree: the end of its text, its depth
        groups: dict[int, _Siblings | None] = {}
        for node, (parent, rank) in enumerate(self._links, 1):
            if len(builder) >= budget:
                break
            at = place.get(parent)
            if at is None:
                continue
            text, depth = ends[at]
            if at not in groups:
                entry = self.memory.lookup(text)
                groups[at] = entry and draws.siblings(entry, depth, self._widths[parent], builder)
            group = groups[at]
            if group is not None and rank < len(group.tokens):
                token = group.tokens[rank]
                place[node] = builder.add(at, token, self.name, group.buckets[rank], group.draft)
                ends.append(((*text, token)[-longest:], depth + 1))
        return builder.build()

    def observe(self, step: Step) -> None:
        """Learn the target's distribution after each committed node."""
        tokens, path = step.context.tokens, step.decision.path
        end = len(tokens) - len(path)  # of the text up to and including the root
        for i, node in enumerate(path):
            text = tuple(tokens[max(0, end + i - self.memory.orders[0]) : end + i])
            alternatives = step.alternatives(node, KEPT)
            self.memory.update(text, {token: math.exp(logprob) for token, logprob in alternatives})


class _Siblings(NamedTuple):
    """The children of one node, in draw order, and the handle of the distribution that they were drawn from."""

    tokens: list[int]
    buckets: list[int]
    draft: int


class _Draws:
    """Draws the children of a node as ``engine.assistant.Draws`` does, but from a handful of tokens."""

    def __init__(self, context: Context, vocab_size: int) -> None:
        self._context = context
        self._vocab_size = vocab_size
        self._rng = draft_generator(context.seed, len(context.tokens))

    def siblings(self, entry: Entry, depth: int, count: int, builder: TreeBuilder) -> _Siblings | None:
        """At most ``count`` children of a node of this depth, for which a lookup found ``entry``."""
        ids, q = np.array(entry.ids), np.array(entry.probabilities)
        if not len(ids):
            return None
        q /= q.sum()
        draft = POINT_MASS
        order = np.arange(len(ids))
        if self._context.temperature > 0:
            order = np.argsort(-(np.log(q) + self._gumbel(ids, depth)), kind="stable")
            if self._context.uses_draft_probs:
                # A copy, so that learning from this pass does not change what its drafts were drawn from.
                whole = np.zeros(self._vocab_size)
                whole[ids] = q
                draft = builder.drawn_from(DraftDistribution(whole, replacement=False))
        order = order[:count]
        levels = np.minimum(np.array(entry.probabilities)[order] * _LEVELS, _LEVELS - 1).astype(int)
        first = np.arange(len(order)) == 0
        buckets = (2 * entry.order + first) * _LEVELS + levels
        return _Siblings(ids[order].tolist(), buckets.tolist(), draft)

    def _gumbel(self, ids: NDArray[np.int64], depth: int) -> NDArray[np.float64]:
        if self._context.uses_draft_probs:
            return self._rng.gumbel(size=len(ids))
        return gumbel_of(self._context.seed, len(self._context.tokens) + depth, ids.tolist())


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary="Samples drafts from the mean of the target's distributions after earlier occurrences of the n-gram.",
    paper="Accelerated Test-Time Scaling with Model-Free Speculative Sampling (2025)",
    options=StandOptions,
    build=lambda resources, options: Stand(
        options, resources.memory("stand", NGramMemory, orders=options.orders), resources.model.vocab_size
    ),
    draws=True,
    memory="n-grams with the distributions after them",
)
