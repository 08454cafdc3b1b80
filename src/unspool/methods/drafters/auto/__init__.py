"""``auto``: all drafters compete for the nodes of one tree (unspool's own; no paper).

Each drafter proposes; equal paths are merged. How often a proposal of a source, bucket (its own measure of confidence)
and depth turns out right is learned while decoding, from every candidate whose parent lies on the emitted path, whether
it was scored or not. The nodes with the highest chance of being reached are bought, as many as give the most expected
tokens per millisecond under the measured cost curve, which the passes that are made correct; if that is none, the bare
token is sent.

Changes against plain decoding: speed only. Guarantee: that of the acceptance rule (drafts are point masses).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import Context, Drafter, Step
from unspool.engine.cost import PassCosts
from unspool.engine.method import DRAFTER, Method, Needs
from unspool.engine.option import Options, option
from unspool.engine.tree import TokenTree
from unspool.methods.drafters.auto.rates import FORGET, PRIOR_WEIGHT, AcceptanceRates
from unspool.methods.resources import Resources

SOURCES = ("suffix", "token_recycling")
"""The drafters that compete."""

_MARGIN = 1.06
"""How much better than the bare token drafts must promise to be. Choosing the best of many estimates overrates it, and
the mistakes of drafting are paid in full, those of not drafting only in gains forgone."""

_RECENT = 0.15
"""Weight of the newest pass in the moving average of what a width promises."""

_KEPT = 8
"""Passes over which the price of a change to the best width of late is spread."""

_LOYALTY = 1.05
"""How much better than the best width of late another must have promised to take its place: two that are nearly equal
would take turns, and every change costs."""


@dataclass(frozen=True)
class AutoOptions(Options):
    """Options of ``auto``.

    Attributes:
        candidates: nodes that each drafter is asked for, and most nodes of a tree. More would give a tenth more tokens
            a millisecond at best, where long passages are copied, and their shapes are rare: a first pass of a shape
            takes up to twice its time.
        forget: weight that an old observation keeps when a new one of its kind arrives, 0 to 1.
        prior_weight: how many observations a prior counts as, above 0, see ``methods.drafters.auto.rates.PRIORS``.
    """

    candidates: int = option(32, least=1)
    forget: float = option(FORGET, least=0, most=1)
    prior_weight: float = option(PRIOR_WEIGHT, above=0, below=float("inf"))


class _Candidate:
    """A node of the merged candidate tree."""

    __slots__ = ("children", "claims", "depth")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.children: dict[int, _Candidate] = {}
        self.claims: list[tuple[str, int]] = []  # (source, bucket) of each drafter that proposes it


class Auto:
    """Drafter that lets others compete. ``drafters`` maps source names to drafters of this sequence."""

    def __init__(
        self,
        drafters: Mapping[str, Drafter],
        costs: PassCosts,
        rates: AcceptanceRates | None = None,
        options: AutoOptions | None = None,
    ) -> None:
        self._options = options or AutoOptions()
        self._drafters = dict(drafters)
        self._costs = costs
        self._rates = AcceptanceRates() if rates is None else rates
        self._root = _Candidate(0)
        self._width = 1  # of the pass before
        self._home = 1  # the width that promised most of late
        self._promise: dict[int, float] = {}  # expected tokens by width, a moving average

    def start(self, context: Context) -> None:
        self._costs.begin()
        for drafter in self._drafters.values():
            drafter.start(context)

    def propose(self, context: Context, budget: int) -> TokenTree:
        self._root = root = _Candidate(0)
        for name, drafter in self._drafters.items():
            _merge(root, name, drafter.propose(context, min(self._options.candidates, budget)))
        return self._buy(root, context, budget)

    def _buy(self, root: _Candidate, context: Context, budget: int) -> TokenTree:
        """The prefix of the nodes in order of reach that has the best expected tokens per millisecond."""
        tokens, parents, sources, names = [context.tokens[-1]], [-1], [0], ["root"]
        expected = [1.0]  # tokens that the first nodes are expected to give, by their number
        cost = self._costs.row(len(context.tokens))
        limit = min(budget, self._options.candidates, len(cost))
        prior_weight = self._options.prior_weight
        heap: list[tuple[float, int, int, int, str, _Candidate]] = []
        order = 0

        def open_node(node: _Candidate, index: int, reach: float) -> None:
            nonlocal order
            estimates = []
            for token, child in node.children.items():
                rates = [
                    (self._rates.rate(source, bucket, child.depth, prior_weight), source)
                    for source, bucket in child.claims
                ]
                estimates.append((*max(rates), token, child))
            total = sum(estimate[0] for estimate in estimates)
            for rate, source, token, child in estimates:
                order += 1
                # Siblings exclude each other: their chances cannot sum to more than 1.
                chance = rate / max(1.0, total)
                heapq.heappush(heap, (-reach * chance, order, index, token, source, child))

        open_node(root, 0, 1.0)
        while heap and len(tokens) < limit:
            if self._is_enough(expected, -heap[0][0], cost, len(context.tokens)):
                break
            negative, _, parent, token, source, node = heapq.heappop(heap)
            if source not in names:
                names.append(source)
            tokens.append(token)
            parents.append(parent)
            sources.append(names.index(source))
            expected.append(expected[-1] - negative)
            open_node(node, len(tokens) - 1, -negative)
        size = self._size(expected, cost, len(context.tokens))
        return TokenTree(
            tuple(tokens[:size]), tuple(parents[:size]), tuple(sources[:size]), tuple(names), width=self._width
        )

    def _is_enough(self, expected: list[float], reach: float, cost: NDArray[np.float64], length: int) -> bool:
        """Whether no wider pass can promise more per millisecond, were each further node reached with this chance.

        It is the largest that is left. Most trees end here, long before all candidates are looked at.
        """
        n = len(expected)
        if n not in self._costs.curve.nodes:
            return False
        most = (expected[-1] + reach * np.arange(1, len(cost) - n + 1)) / cost[n:]
        so_far = expected[-1] / (float(cost[n - 1]) + 2 * self._costs.change(n, length))
        return so_far >= float(most.max(initial=0.0))

    def _size(self, expected: list[float], cost: NDArray[np.float64], length: int) -> int:
        """How many nodes to buy.

        A pass of another width than the one before costs more, so a width is not chosen for one pass: the width that
        promised most of late is cheap to return to, any other is charged for going there and back. A small tree can
        also be padded to one of the two widths that cost no change.
        """
        curve = self._costs.curve
        sizes = {curve.width(n): n for n in range(1, len(expected) + 1)}  # the widest tree of each width
        if curve.padded:
            sizes |= {width: len(expected) for width in (self._width, self._home) if width > max(sizes)}
        for width, n in sizes.items():
            before = self._promise.get(width, 1.0)
            self._promise[width] = before + _RECENT * (expected[n - 1] - before)

        def rate(width: int, tokens: float, charge: float) -> float:
            return tokens * (_MARGIN if width == 1 else 1.0) / (float(cost[width - 1]) + charge)

        def promised(width: int) -> float:
            return rate(width, self._promise[width], 0.0) * (_LOYALTY if width == self._home else 1.0)

        self._home = max(sizes, key=promised)
        charges = {width: 2 * self._costs.change(width, length) for width in sizes}
        charges[self._home] /= 2 * _KEPT
        self._width = max(sizes, key=lambda width: rate(width, expected[sizes[width] - 1], charges[width]))
        return sizes[self._width]

    def observe(self, step: Step) -> None:
        nodes = max(len(step.tree), step.tree.width)
        self._costs.observe(nodes, len(step.context.tokens) - len(step.emitted), step.ms)
        node = self._root
        for token in step.emitted:
            for candidate, child in node.children.items():
                for source, bucket in child.claims:
                    self._rates.update(source, bucket, child.depth, candidate == token, self._options.forget)
            if token not in node.children:
                break
            node = node.children[token]
        for drafter in self._drafters.values():
            drafter.observe(step)


def _merge(root: _Candidate, name: str, tree: TokenTree) -> None:
    places = [root]
    for node in range(1, len(tree)):
        parent = places[tree.parents[node]]
        child = parent.children.get(tree.tokens[node])
        if child is None:
            child = parent.children[tree.tokens[node]] = _Candidate(parent.depth + 1)
        child.claims.append((name, tree.buckets[node]))
        places.append(child)


def _build(resources: Resources, options: AutoOptions) -> Auto:
    assert resources.costs is not None  # see Needs
    drafters = {name: resources.build(name, DRAFTER) for name in SOURCES}
    return Auto(drafters, resources.costs(), resources.memory("auto", AcceptanceRates), options)


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary="Lets suffix drafts and token recycling compete for the nodes of one tree under this machine's cost curve.",
    paper="unspool's own",
    options=AutoOptions,
    build=_build,
    needs=Needs(costs=True),
    memory="how often drafts of each source were right",
)
