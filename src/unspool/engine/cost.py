"""The cost curve: milliseconds to score n nodes behind a context of some length, measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import LanguageModel
from unspool.engine.tree import TokenTree

NODES = (1, 2, 3, 4, 5, 8, 9, 12, 13, 16, 17, 24, 25, 32, 48, 64)
LENGTHS = (32, 256, 1024)
SECONDS = 9.0


@dataclass(frozen=True)
class CostCurve:
    """Measured points and what lies between them.

    Attributes:
        nodes: numbers of nodes, ascending, starting at 1.
        lengths: context lengths in tokens, ascending.
        ms: milliseconds, one row a length, one column a number of nodes.
    """

    nodes: tuple[int, ...]
    lengths: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]

    def row(self, length: int) -> NDArray[np.float64]:
        """Milliseconds [64] for 1..64 nodes at a context length (interpolated; constant beyond the measured lengths).

        Never decreasing in the number of nodes: where a wider pass was measured faster, the narrower costs as much,
        since it could be padded.
        """
        # One length in eight is computed: the curve changes slowly and a decoding loop asks at every step.
        return _row(self, length // 8 * 8)


@lru_cache(maxsize=256)
def _row(curve: CostCurve, length: int) -> NDArray[np.float64]:
    at_length = [float(np.interp(length, curve.lengths, column)) for column in zip(*curve.ms, strict=True)]
    full = np.interp(np.arange(1, curve.nodes[-1] + 1), curve.nodes, at_length)
    return np.minimum.accumulate(full[::-1])[::-1]


def measure(
    model: LanguageModel,
    nodes: Sequence[int] = NODES,
    lengths: Sequence[int] = LENGTHS,
    seconds: float = SECONDS,
    progress: Callable[[float], None] = lambda done: None,
) -> CostCurve:
    """Measure the curve in about ``seconds``: rounds over all widths, so that a slow moment of the machine spreads.

    Args:
        model: its ``max_length`` cuts the lengths.
        progress: told the share of the time that has passed, 0 to 1.
    """
    room = model.max_length - max(nodes)
    lengths = sorted({min(length, room) for length in lengths})
    start = time.perf_counter()
    table = []
    for i, length in enumerate(lengths):
        session = model.open()
        for at in range(0, length, 256):
            block = TokenTree.chain(_tokens(min(256, length - at), model.vocab_size))
            session.score(block, rows=())
            session.commit(range(len(block)))
        times: dict[int, list[float]] = {n: [] for n in nodes}
        end = start + seconds * (i + 1) / len(lengths)
        while not times[nodes[0]] or time.perf_counter() < end:
            for n in nodes:
                tree = TokenTree.chain(_tokens(n, model.vocab_size))
                if not times[n]:
                    session.score(tree)  # the first pass of a shape prepares its kernels
                times[n].append(session.score(tree).ms)
                if len(times[n]) > 1 and time.perf_counter() > end:
                    break
            progress(min(1.0, (time.perf_counter() - start) / seconds))
        session.close()
        table.append(tuple(median(times[n]) for n in nodes))
    return CostCurve(tuple(nodes), tuple(lengths), tuple(table))


def _tokens(n: int, vocab_size: int) -> list[int]:
    # Any ids do: the cost of a pass does not depend on them. Spread, so that the embedding rows are not all cached.
    return [(i * 7919 + 5) % vocab_size for i in range(n)]
