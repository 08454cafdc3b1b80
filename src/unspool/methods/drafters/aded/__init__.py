"""Adaptive Draft-Verification for Efficient Large Language Model Decoding (2025): ADED, a search in a trigram table.

A table says how likely each token is after each pair of tokens: counted in a corpus, or empty at first, and raised for
every trigram that the newest text holds. Before each pass a tree search (PUCT, as in AlphaZero) runs from the last two
tokens through the table; the prefixes that it visited most often are drafted.

The paper's table starts from a corpus, and so does this one where ``corpus`` names one. Without it the table knows
nothing but what was decoded with it, and results say so: ``aded (no corpus)``.

What it changes about plain decoding: several of its tokens leave one pass. Guarantee: identical, whatever the table
holds; drafts are point masses, and the acceptance rule decides (the paper's own rule is biased when it samples).

Choices where the paper's code is arbitrary or at odds with its purpose:
- The score of a search sums the table's values along its path. The code looks up another token's value, mostly 0.
- Successors are tried in order of value, then of id (the code: in the order of a hash table).
- What is too much is cut by visits. The code drops its longest drafts first, until the tokens of all, shared ones
  counted again, are at most 64; with its 24 prefixes a tree has less than 64 nodes anyway.
- Trigrams learned from the text are bounded in number; the pair that was raised longest ago returns to the corpus.

Left out: values never fade (nor do they in the paper), so frequent trigrams of a long run all reach the cap.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from unspool.engine.contracts import Context, Step
from unspool.engine.method import DRAFTER, Method
from unspool.engine.noise import draft_generator
from unspool.engine.tree import TokenTree, TreeBuilder
from unspool.errors import UnspoolError
from unspool.methods.drafters._datastore import Datastore
from unspool.methods.drafters.aded.table import TrigramTable
from unspool.methods.resources import Resources

_WINDOW = 16  # tokens whose trigrams are raised before each pass
_LEVELS = 3  # of the search: a path holds four pairs of tokens, the root's included
_KEPT = 24  # most visited prefixes, the empty one included
_C1, _C2 = 32.0, 8.0  # of PUCT
_SHARES, _VALUES = 4, (0.1, 0.3, 1.0)  # of the buckets


@dataclass(frozen=True)
class AdedOptions:
    """Defaults are those of the paper's code.

    Attributes:
        nodes: most drafted nodes of a tree, 1 to 64, the root not counted.
        iterations: of the search before each pass, at least 1. 150 take about 1 to 2 ms.
        increment: by how much a trigram of the newest text is raised, 0 to 3; 0: nothing is learned from the text.
        corpus: directory that ``unspool datastore build`` made, whose trigrams are counted when it is first asked for,
            about a second a million tokens. None: the table is ``memories["aded"]``, which is empty at first.
    """

    nodes: int = 64
    iterations: int = 150
    increment: float = 0.04
    corpus: str | None = None

    @property
    def lacks(self) -> str:
        """What of the paper's method is missing with these options."""
        return "no corpus" if self.corpus is None else ""

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= 64:
            raise UnspoolError(f"nodes must lie in 1 to 64, not {self.nodes}")
        if self.iterations < 1:
            raise UnspoolError(f"iterations must be at least 1, not {self.iterations}")
        if not 0 <= self.increment <= 3:
            raise UnspoolError(f"increment must lie in 0 to 3, not {self.increment}")


class _Successors:
    """What may follow a pair of tokens, likeliest first; ``cumulated`` are the sums of the first values."""

    __slots__ = ("cumulated", "ids", "values")

    def __init__(self, found: list[tuple[int, float]]) -> None:
        self.ids = [token for token, _ in found]
        self.values = [value for _, value in found]
        self.cumulated: list[float] = []


class _Node:
    """A node of the search. What PUCT reads of the children is kept here, in lists."""

    __slots__ = ("children", "explore", "mean", "pair", "score", "successors", "visits")

    def __init__(self, pair: tuple[int, int], successors: _Successors) -> None:
        self.pair = pair
        self.successors = successors
        self.visits = 0
        self.score = 0.0
        self.children: list[_Node] = []  # those that were visited: the first ones of the successors
        self.mean: list[float] = []  # of each child: score / visits
        self.explore: list[float] = []  # of each child: p / (1 + visits)


_UNKNOWN = _Successors([])  # of the deepest nodes, whose successors the search itself never needs


class Draft(NamedTuple):
    """A node to draft.

    Attributes:
        path: the tokens that lead to it from the root, its own last.
        share: of its parent's visits, 0 to 1.
        value: of its trigram in the table.
    """

    path: tuple[int, ...]
    share: float
    value: float


class _Search:
    """One tree search from a pair of tokens."""

    def __init__(self, table: TrigramTable, pair: tuple[int, int], uniform: Iterator[float]) -> None:
        self._table = table
        self._uniform = uniform
        self._known: dict[tuple[int, int], _Successors] = {}
        self.root = _Node(pair, self._after(pair))

    def _after(self, pair: tuple[int, int]) -> _Successors:
        """The successors of a pair; the table does not change during a search."""
        known = self._known.get(pair)
        if known is None:
            known = self._known[pair] = _Successors(self._table.successors(*pair))
        return known

    def run(self, iterations: int) -> None:
        """Select, expand, roll out and score."""
        # (c1 + ln((N + c2 + 1) / c2)) sqrt(N) by the parent's visits N.
        weights = [(_C1 + math.log((n + _C2 + 1) / _C2)) * math.sqrt(n) for n in range(iterations)]
        for _ in range(iterations):
            node, score = self.root, 1.0
            trail: list[tuple[_Node, int]] = []
            while node.children and len(trail) < _LEVELS:
                at = self._select(node, weights[node.visits], len(trail))
                trail.append((node, at))
                score += node.successors.values[at]
                node = node.children[at]
            if len(trail) < _LEVELS and node.successors.ids:
                self._visit(node, len(trail))
                trail.append((node, 0))
                score += node.successors.values[0]
                node = node.children[0]
            if len(trail) < _LEVELS:
                score += self._roll_out(node, _LEVELS - len(trail))
            _credit(node, trail, score)

    def _select(self, node: _Node, weight: float, level: int) -> int:
        """The child with the largest PUCT value; children that were never visited come first."""
        count = len(node.children)
        if count < len(node.successors.ids):
            self._visit(node, level)
            return count
        values = [mean + weight * explore for mean, explore in zip(node.mean, node.explore, strict=True)]
        return values.index(max(values))

    def _visit(self, node: _Node, level: int) -> None:
        """Make the next child of a node of this level, 0 at the root."""
        pair = node.pair[1], node.successors.ids[len(node.children)]
        node.children.append(_Node(pair, self._after(pair) if level + 1 < _LEVELS else _UNKNOWN))
        node.mean.append(0.0)
        node.explore.append(0.0)

    def _roll_out(self, node: _Node, steps: int) -> float:
        """Sum of the values of up to ``steps`` successors, each drawn in proportion to its value."""
        pair, successors, total = node.pair, node.successors, 0.0
        for left in range(steps, 0, -1):
            if not successors.ids:
                break
            if not successors.cumulated:
                successors.cumulated = list(accumulate(successors.values))
            cumulated = successors.cumulated
            drawn = min(bisect(cumulated, next(self._uniform) * cumulated[-1]), len(cumulated) - 1)
            total += successors.values[drawn]
            if left > 1:
                pair = pair[1], successors.ids[drawn]
                successors = self._after(pair)
        return total

    def drafts(self) -> list[Draft]:
        """The prefixes that were visited most, each with the likeliest successor of its last pair, by visits."""
        found: list[tuple[float, Draft]] = []  # visits, draft
        for visits, path, parent, at in self._prefixes()[: _KEPT - 1]:
            found.append((visits, Draft(path, visits / parent.visits, parent.successors.values[at])))
            child = parent.children[at]
            successors = self._after(child.pair)
            if successors.ids:
                share = successors.values[0] / sum(successors.values)
                reached = child.children[0].visits if child.children else visits * share
                found.append((reached, Draft((*path, successors.ids[0]), reached / visits, successors.values[0])))
        # Stable: among equals parents come before their children.
        found.sort(key=lambda draft: -draft[0])
        return list({draft.path: draft for _, draft in found}.values())

    def _prefixes(self) -> list[tuple[int, tuple[int, ...], _Node, int]]:
        """Visits, path, parent and place among its children of every node but the root, by visits."""
        prefixes: list[tuple[int, tuple[int, ...], _Node, int]] = []
        level: list[tuple[tuple[int, ...], _Node]] = [((), self.root)]
        while level:
            below = []
            for path, node in level:
                for at, child in enumerate(node.children):
                    below.append(((*path, child.pair[1]), child))
                    prefixes.append((child.visits, below[-1][0], node, at))
            level = below
        # Stable: among equals parents come before their children, and better successors before worse.
        return sorted(prefixes, key=lambda prefix: -prefix[0])


def _credit(leaf: _Node, trail: list[tuple[_Node, int]], score: float) -> None:
    """A visit and a score for the leaf and all its ancestors."""
    leaf.visits += 1
    leaf.score += score
    for parent, at in reversed(trail):
        child = parent.children[at]
        parent.mean[at] = child.score / child.visits
        parent.explore[at] = parent.successors.values[at] / (1 + child.visits)
        parent.visits += 1
        parent.score += score


class Aded:
    """The prefixes that a tree search through a ``TrigramTable`` visits most.

    Buckets tell the node's share of its parent's visits in quarters and its value in the table.

    Args:
        options: see ``AdedOptions``.
        memory: the table to read and write.
        vocab_size: width of the model's row of logits.

    Raises:
        UnspoolError: if the table belongs to another vocabulary.
    """

    def __init__(self, options: AdedOptions, memory: TrigramTable, vocab_size: int) -> None:
        self.options = options
        self.memory = memory
        # A table of the user's own may have a corpus that the options do not name.
        self.name = "aded" if memory.has_corpus else f"aded ({AdedOptions().lacks})"
        memory.fit(vocab_size)

    def start(self, context: Context) -> None:
        """Nothing: the end of the prompt is learned with the first draft."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        """A tree of at most ``min(budget, nodes + 1)`` nodes; the root alone where the table has no successor."""
        tokens = context.tokens
        if self.options.increment:
            self.memory.reinforce(tokens[-_WINDOW:], self.options.increment)
        builder = TreeBuilder(tokens[-1])
        limit = min(budget, self.options.nodes + 1)
        if limit > 1 and len(tokens) > 1:
            place: dict[tuple[int, ...], int] = {(): 0}
            for path, share, value in self.drafts(context)[: limit - 1]:
                bucket = min(int(share * _SHARES), _SHARES - 1) * (len(_VALUES) + 1) + bisect(_VALUES, value)
                place[path] = builder.add(place[path[:-1]], path[-1], self.name, bucket)
        return builder.build()

    def drafts(self, context: Context) -> list[Draft]:
        """What the search finds after a text of at least two tokens, best first, parents before their children."""
        tokens, options = context.tokens, self.options
        uniform = draft_generator(context.seed, len(tokens)).random(options.iterations * _LEVELS).tolist()
        search = _Search(self.memory, (tokens[-2], tokens[-1]), iter(uniform))
        search.run(options.iterations)
        return search.drafts()

    def observe(self, step: Step) -> None:
        """Nothing: the text is learned in ``propose``, as in the paper's code."""


def _build(resources: Resources, options: AdedOptions) -> Aded:
    table: TrigramTable
    if options.corpus is None:
        table = resources.memory("aded", TrigramTable)
    else:
        table = resources.memory(f"aded:corpus={options.corpus}", TrigramTable)
        if not table.has_corpus:  # it is new, or all memories were reset; the option still names it
            store = Datastore.open(options.corpus)
            store.check(resources.model.vocab_size, resources.vocabulary())
            table.count(store.documents())
    return Aded(options, table, resources.model.vocab_size)


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary=(
        "Searches a table of trigrams, of a corpus or empty at first and raised by the newest text, for what to draft."
    ),
    paper="Adaptive Draft-Verification for Efficient Large Language Model Decoding (2025)",
    options=AdedOptions,
    build=_build,
)
