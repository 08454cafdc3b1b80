"""Stochastic beam search: "Stochastic Beams and Where to Find Them" (2019), one level at a time.

Keeps the prefixes with the largest perturbed log-probabilities. The prefixes of one level are then draws without
replacement from all prefixes of that length, in that order; so are the children of one prefix from its next tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unspool.engine.numeric import top_k

Row = NDArray[np.float64]


@dataclass(frozen=True)
class Beam:
    """The prefixes of one level, best first; by default the empty prefix.

    Attributes:
        logprobs: [n] log-probability of each prefix.
        perturbed: [n] the same plus Gumbel noise: the maximum over all its continuations.
        parents: [n] index of its parent in the previous level.
        tokens: [n] its last token.
    """

    logprobs: Row = field(default_factory=lambda: np.zeros(1))
    perturbed: Row = field(default_factory=lambda: np.zeros(1))
    parents: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    tokens: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))

    def __len__(self) -> int:
        return len(self.tokens)

    def expanded(self, logprobs: Sequence[Row], noise: Sequence[Row | float | None], width: int) -> Beam:
        """The ``width`` best one-token continuations; fewer if fewer have positive probability.

        Args:
            logprobs: for each prefix, [vocabulary] log-probabilities of its next token.
            noise: for each prefix, standard Gumbel noise [vocabulary]; None: plain beam search.
        """
        candidates = []
        for i, (row, gumbel) in enumerate(zip(logprobs, noise, strict=True)):
            # Under one prefix a value rises with its key, so only its best keys can be kept.
            ids, keys = (part[0] for part in top_k((row if gumbel is None else row + gumbel)[None], width))
            sums = self.logprobs[i] + row[ids]
            values = sums if gumbel is None else conditioned(self.logprobs[i] + keys, float(self.perturbed[i]))
            possible = np.exp(row[ids]) > 0
            candidates.append(tuple(part[possible] for part in (sums, values, np.full(len(ids), i), ids)))
        sums, values, parents, tokens = (np.concatenate(parts) for parts in zip(*candidates, strict=True))
        # Stable: children of one prefix whose values round to the same number keep the order of their keys.
        best = np.argsort(-values, kind="stable")[:width]
        return Beam(sums[best], values[best], parents[best], tokens[best])


def conditioned(keys: Row, maximum: float) -> Row:
    """Gumbel variables conditioned on their maximum being ``maximum``.

    Args:
        keys: [n] in descending order; the first is the largest of the whole set.

    Returns:
        [n] -log(exp(-maximum) - exp(-keys[0]) + exp(-keys)), in the overflow-free form of the paper's appendix.
    """
    gap = keys - keys[0]
    with np.errstate(divide="ignore"):  # the largest key has gap 0, its log is -inf: it becomes the maximum
        log1mexp = np.where(gap > -np.log(2), np.log(-np.expm1(gap)), np.log1p(-np.exp(gap)))
    v = maximum - keys + log1mexp
    moved: Row = maximum - np.maximum(v, 0) - np.log1p(np.exp(-np.abs(v)))
    return moved
