"""``auto``: drafters compete for the nodes of one tree (unspool's own; no paper).

Each drafter proposes; equal paths are merged. While decoding, ``auto`` learns how often a proposal of each source,
bucket (the source's own measure of confidence) and depth is right, from every candidate whose parent is on the emitted
path, scored or not. It takes the nodes with the highest probability of being reached, in the number that maximises
expected tokens per millisecond under the measured cost curve, which actual passes correct. If no draft pays, it sends
the root only.

What it changes about plain decoding: speed only. Guarantee: that of the acceptance rule (drafts are point masses).
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
"""Factor by which drafts must promise to beat a single-token pass. The best of many estimates is overrated, and a wrong
draft costs its full price, a missing one only the gain forgone."""

_RECENT = 0.15
"""Weight of the newest pass in the moving average of what a width promises."""

_KEPT = 8
"""Passes over which the cost of a change to the recently best width is spread."""

_LOYALTY = 1.05
"""Factor by which another width must beat the recently best one to replace it. Two that are nearly equal would
alternate, and every change costs."""


@dataclass(frozen=True)
class AutoOptions(Options):
    """Options of ``auto``.

    Attributes:
        candidates: nodes requested from each drafter, and most nodes of a tree. More would give a tenth more tokens
            per millisecond at best, where long passages are copied, and their shapes are rare: a first pass of a shape
            takes up to twice its time.
        forget: weight that an old observation keeps when a new one of its kind arrives, 0 to 1.
        prior_weight: observations that a prior counts as, above 0, see ``methods.drafters.auto.rates.PRIORS``.
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
    """Drafter that makes others compete. ``drafters`` maps source names to drafters of this sequence."""

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
        self._width = 1  # of the previous pass
        self._home = 1  # the best width of recent passes
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
        """The prefix of the nodes, in order of reach, with the most expected tokens per millisecond."""
        tokens, parents, sources, names = [context.tokens[-1]], [-1], [0], ["root"]
        expected = [1.0]  # expected tokens by number of nodes
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
                # Siblings exclude each other: their probabilities cannot sum to more than 1.
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
        """Whether no wider pass can promise more per millisecond, even if every further node had this ``reach``.

        That is the largest that is left. Most trees end here, long before all candidates are visited.
        """
        n = len(expected)
        if n not in self._costs.curve.nodes:
            return False
        most = (expected[-1] + reach * np.arange(1, len(cost) - n + 1)) / cost[n:]
        so_far = expected[-1] / (float(cost[n - 1]) + 2 * self._costs.change(n, length))
        return so_far >= float(most.max(initial=0.0))

    def _size(self, expected: list[float], cost: NDArray[np.float64], length: int) -> int:
        """Number of nodes to take.

        A change of width costs time, so a width is not chosen for one pass: the recently best width is cheap to return
        to, and any other is charged for the way there and back. A small tree can also be padded to one of the two
        widths that need no change.
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
    summary="Lets suffix drafts and token recycling compete for the nodes of one tree, by this machine's cost curve.",
    paper="unspool's own",
    options=AutoOptions,
    build=_build,
    needs=Needs(costs=True),
    memory="how often drafts of each source were right",
)
