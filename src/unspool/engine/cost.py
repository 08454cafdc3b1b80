"""The cost curve: milliseconds to score n nodes behind a context of some length, measured on this machine.

``CostCurve`` is measured once; ``PassCosts`` corrects it by what the passes of decoding really take.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import median

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import LanguageModel, SeparableModel
from unspool.engine.progress import Progress, silent
from unspool.engine.tree import TokenTree

NODES = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64)
LENGTHS = (32, 256, 1024)
SECONDS = 8.0
_BLOCK = 128

_FORGET = 0.95
"""Weight that an old pass keeps when a new one of its width arrives: some twenty passes count."""

_PRIOR_WEIGHT = 2.0
"""How many passes the measured curve counts as, and for a single width what all widths have shown."""

_WORTH_MS = 6000.0
"""What changes of width must have cost before every width is prepared for itself, which costs about as much: so a
process never pays more than twice what it would have paid had it known how long it lives."""

_ODDEST = 1.25
"""How many times what was expected a pass counts at most, and the inverse at least: the first pass of a shape, or one
beside which something else ran, takes up to twice its time."""


@dataclass(frozen=True)
class CostCurve:
    """Measured points and what lies between them.

    Attributes:
        nodes: numbers of nodes, ascending, starting at 1.
        lengths: context lengths in tokens, ascending.
        ms: milliseconds of a pass after one of the same width, one row a length, one column a number of nodes.
        switch_ms: what a pass after one of another width costs more.
        padded: whether passes are padded to the numbers in ``nodes``.
    """

    nodes: tuple[int, ...]
    lengths: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]
    switch_ms: float = 0.0
    padded: bool = False

    def row(self, length: int) -> NDArray[np.float64]:
        """Milliseconds [64] for 1..64 nodes at a context length (interpolated; constant beyond the measured lengths).

        Never decreasing in the number of nodes: where a wider pass was measured faster, the narrower costs as much,
        since it could be padded.
        """
        # One length in eight is computed: the curve changes slowly and a decoding loop asks at every step.
        return _row(self, length // 8 * 8)

    def width(self, n: int) -> int:
        """Number of nodes that a pass over ``n`` nodes scores."""
        return self.nodes[bisect_left(self.nodes, n)] if self.padded else n


@lru_cache(maxsize=256)
def _row(curve: CostCurve, length: int) -> NDArray[np.float64]:
    at_length = np.array([float(np.interp(length, curve.lengths, column)) for column in zip(*curve.ms, strict=True)])
    n = np.arange(1, curve.nodes[-1] + 1)
    full = at_length[np.searchsorted(curve.nodes, n)] if curve.padded else np.interp(n, curve.nodes, at_length)
    return np.minimum.accumulate(full[::-1])[::-1]


class PassCosts:
    """A cost curve, corrected by passes that were really made.

    A calibration meets the machine for some seconds and decodes nothing: between its passes no draft is looked up, no
    logits are read and no cache grows. What choices depend on is how the widths compare, so each has a ratio to the
    curve of its own, which starts from that of all widths.

    Args:
        curve: where to start.
        model: the model, if changes of width cost nothing once it has separated them.
        report: told before that, since it takes seconds.
    """

    def __init__(
        self,
        curve: CostCurve,
        model: SeparableModel | None = None,
        report: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.curve = curve
        self._report = report
        self._model = model
        self._changes_ms = 0.0
        self._seen: dict[int, tuple[float, float]] = {}  # by node number of the curve; 0: all: sum of ratios, passes
        self._width = 0  # of the last pass whose width is not free

    def row(self, length: int) -> NDArray[np.float64]:
        """As ``CostCurve.row``, corrected."""
        common = self._ratio(0, 1.0)
        ratios = [self._ratio(n, common) for n in self.curve.nodes]
        n = np.arange(1, self.curve.nodes[-1] + 1)
        if self.curve.padded:
            full = np.array(ratios)[np.searchsorted(self.curve.nodes, n)]
        else:
            full = np.interp(n, self.curve.nodes, ratios)
        return np.minimum.accumulate((self.curve.row(length) * full)[::-1])[::-1]

    def _free(self, length: int) -> frozenset[int]:
        return frozenset() if self._model is None else self._model.separated(length)

    def begin(self) -> None:
        """A request begins: the time to prepare all widths for themselves, if changes of width have cost enough."""
        if self._model is not None and not self._free(0) and self._changes_ms > _WORTH_MS:
            self._report("preparing frequent widths of a pass, once (some seconds)")
            self._model.separate_widths()

    def change(self, width: int, length: int) -> float:
        """Milliseconds that a pass of this width, behind ``length`` tokens, costs more than after one of its like."""
        return 0.0 if width == self._width or width in self._free(length) else self.curve.switch_ms

    def observe(self, n: int, length: int, ms: float) -> None:
        """A pass over ``n`` nodes behind ``length`` tokens took ``ms``."""
        if n > self.curve.nodes[-1]:
            self._width = 0
            return
        width = self.curve.width(n)
        change = self.change(width, length)
        self._changes_ms += change
        if width not in self._free(length):
            self._width = width
        ratio = (ms - change) / float(self.curve.row(length)[width - 1])
        common = self._ratio(0, 1.0)
        for key in (0, self.curve.nodes[bisect_left(self.curve.nodes, width)]):
            expected = self._ratio(key, common)
            counted = min(max(ratio, expected / _ODDEST), expected * _ODDEST)
            total, passes = self._seen.get(key, (0.0, 0.0))
            self._seen[key] = (total * _FORGET + counted, passes * _FORGET + 1)

    def _ratio(self, key: int, prior: float) -> float:
        total, passes = self._seen.get(key, (0.0, 0.0))
        return (total + _PRIOR_WEIGHT * prior) / (passes + _PRIOR_WEIGHT)


def measure(model: LanguageModel, seconds: float = SECONDS, progress: Progress = silent) -> CostCurve:
    """Measure the curve in about ``seconds``: rounds over all widths, so that a slow moment of the machine spreads.

    Args:
        model: its ``max_length`` cuts the lengths, its ``widths`` are measured if it has any.
        progress: receives how many percent of the time have passed.
    """
    nodes = tuple(n for n in model.widths if n <= NODES[-1]) or NODES
    lengths = sorted({min(length, model.max_length - nodes[-1]) for length in LENGTHS})
    start = time.perf_counter()
    table = []
    switches: list[float] = []
    for i, length in enumerate(lengths):
        session = model.open()
        for at in range(0, length, _BLOCK):
            block = TokenTree.chain(_tokens(min(_BLOCK, length - at), model.vocab_size))
            session.score(block, rows=())
            session.commit(range(len(block)))
        times: dict[int, list[float]] = {n: [] for n in nodes}
        end = start + seconds * (i + 1) / len(lengths)
        trees = [TokenTree.chain(_tokens(n, model.vocab_size)) for n in nodes]
        for tree in trees:
            session.score(tree)  # the first pass of a shape prepares its kernels
        while not times[nodes[-1]] or time.perf_counter() < end:
            for tree in trees:
                after_another = session.score(tree).ms
                after_its_like = min(session.score(tree).ms, session.score(tree).ms)
                times[len(tree)].append(after_its_like)
                switches.append(after_another - after_its_like)
                if times[nodes[-1]] and time.perf_counter() > end:
                    break
            progress("cost curve", min(99, int(100 * (time.perf_counter() - start) / seconds)), 100)
        session.close()
        table.append(tuple(median(times[n]) for n in nodes))
    progress("cost curve", 100, 100)
    return CostCurve(nodes, tuple(lengths), tuple(table), max(0.0, median(switches)), bool(model.widths))


def _tokens(n: int, vocab_size: int) -> list[int]:
    # Any ids do: the cost of a pass does not depend on them. Spread, so that the embedding rows are not all cached.
    return [(i * 7919 + 5) % vocab_size for i in range(n)]
