"""The cost curve: milliseconds to score n nodes after a context of a given length, measured on this machine.

``CostCurve`` is measured once; ``PassCosts`` corrects it by the measured passes of decoding.
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

from unspool.engine.contracts import LanguageModel, SpecialisingModel
from unspool.engine.progress import Progress, silent
from unspool.engine.tree import TokenTree

NODES = (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 48, 64)
LENGTHS = (32, 256, 1024)
SECONDS = 8.0
_BLOCK = 128

_FORGET = 0.95
"""Weight of an old pass when a new one of its width arrives: about 20 passes count."""

_PRIOR_WEIGHT = 2.0
"""How many passes the prior counts as: the measured curve, and for a single width the ratio of all widths."""

_WORTH_MS = 6000.0
"""Milliseconds lost to width changes before every width is specialised, which costs about as much. A process pays at
most twice the cost of an optimal offline choice (ski rental)."""

_ODDEST = 1.25
"""A pass counts as at most this many times its expected time, and at least as its inverse. The first pass of a shape,
or one that competes with other work, takes up to twice its time."""


@dataclass(frozen=True)
class CostCurve:
    """Measured points, interpolated between.

    Attributes:
        nodes: node counts, ascending, starting at 1.
        lengths: context lengths in tokens, ascending.
        ms: milliseconds of a pass after one of the same width: one row per length, one column per node count.
        switch_ms: additional milliseconds of a pass after one of another width.
        padded: whether passes are padded to the counts in ``nodes``.
    """

    nodes: tuple[int, ...]
    lengths: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]
    switch_ms: float = 0.0
    padded: bool = False

    def row(self, length: int) -> NDArray[np.float64]:
        """Milliseconds [64] for 1 to 64 nodes at a context length (interpolated; constant beyond the measured lengths).

        Never decreases with the node count: if a wider pass was measured faster, the narrower one costs the same, since
        it could be padded.
        """
        # Only every eighth length is computed: the curve changes slowly and the loop asks at every step.
        return _row(self, length // 8 * 8)

    def width(self, n: int) -> int:
        """Number of nodes that a pass over ``n`` nodes scores, padding included."""
        return self.nodes[bisect_left(self.nodes, n)] if self.padded else n


@lru_cache(maxsize=256)
def _row(curve: CostCurve, length: int) -> NDArray[np.float64]:
    at_length = np.array([float(np.interp(length, curve.lengths, column)) for column in zip(*curve.ms, strict=True)])
    n = np.arange(1, curve.nodes[-1] + 1)
    full = at_length[np.searchsorted(curve.nodes, n)] if curve.padded else np.interp(n, curve.nodes, at_length)
    return np.minimum.accumulate(full[::-1])[::-1]


class PassCosts:
    """A cost curve, corrected by real passes.

    A calibration takes some seconds and decodes nothing: between its passes no draft is looked up, no logits are read
    and no cache grows. Choices depend on how the widths compare, so each width has its own ratio to the curve, with the
    ratio of all widths as its prior.

    Args:
        curve: the measured curve.
        model: the model, if width changes are free once it has specialised its widths.
        report: receives a message before that, since it takes seconds.
    """

    def __init__(
        self,
        curve: CostCurve,
        model: SpecialisingModel | None = None,
        report: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.curve = curve
        self._report = report
        self._model = model
        self._changes_ms = 0.0
        self._seen: dict[int, tuple[float, float]] = {}  # by node count, 0 for all: (sum of ratios, passes)
        self._width = 0  # of the last pass that was not specialised

    def row(self, length: int) -> NDArray[np.float64]:
        """``CostCurve.row``, corrected."""
        common = self._ratio(0, 1.0)
        ratios = [self._ratio(n, common) for n in self.curve.nodes]
        n = np.arange(1, self.curve.nodes[-1] + 1)
        if self.curve.padded:
            full = np.array(ratios)[np.searchsorted(self.curve.nodes, n)]
        else:
            full = np.interp(n, self.curve.nodes, ratios)
        return np.minimum.accumulate((self.curve.row(length) * full)[::-1])[::-1]

    def _free(self, length: int) -> frozenset[int]:
        return frozenset() if self._model is None else self._model.specialised(length)

    def begin(self) -> None:
        """Called when a request begins: specialises all widths if width changes have cost enough."""
        if self._model is not None and not self._free(0) and self._changes_ms > _WORTH_MS:
            self._report("specialising the frequent pass widths, once (some seconds)")
            self._model.specialise_widths()

    def change(self, width: int, length: int) -> float:
        """Additional milliseconds of a pass of this width after ``length`` tokens, given the width of the last pass."""
        return 0.0 if width == self._width or width in self._free(length) else self.curve.switch_ms

    def observe(self, n: int, length: int, ms: float) -> None:
        """Record that a pass over ``n`` nodes after ``length`` tokens took ``ms``."""
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
    """Measure the curve in about ``seconds``, in rounds over all widths, so that a slow moment affects all of them.

    Args:
        model: its ``max_length`` limits the lengths; its ``widths``, if any, are the widths measured.
        progress: receives the elapsed percentage of the time.
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
    # Any ids do: the cost of a pass does not depend on them. They vary, so that not all embedding rows are cached.
    return [(i * 7919 + 5) % vocab_size for i in range(n)]
