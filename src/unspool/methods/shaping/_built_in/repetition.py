"""Penalties on repetition: ``repetition_penalty`` and ``no_repeat_ngram_size``, as in transformers.

Both look at the whole history of a node, so a drafted token counts for the drafts below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from unspool.engine import numeric
from unspool.engine.contracts import Logits


@dataclass(frozen=True)
class RepetitionPenalty:
    """Divides the positive and multiplies the negative logits of tokens that occur in the text (CTRL, 2019).

    Attributes:
        penalty: above 1 makes them less likely, below 1 more likely; 1e-200 to 1e200. It does not depend on how often a
            token occurs.
    """

    penalty: float

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        seen = _within(tokens, len(logits))
        shaped = self._applied(logits.copy(), seen)
        if not abs(shaped.max(initial=-np.inf)) <= numeric.RANGE:
            # A penalty near 0, or a large one where all tokens have been seen, goes beyond the range of float32.
            shaped = self._applied(logits.astype(np.float64), seen)
        return cast(Logits, shaped)

    def _applied(self, shaped: NDArray[Any], seen: NDArray[np.int64]) -> NDArray[Any]:
        values = shaped[seen]
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            shaped[seen] = np.where(values < 0, values * self.penalty, values / self.penalty)
        return shaped


@dataclass(frozen=True)
class NoRepeatNGram:
    """Forbids every token that would complete an n-gram that is already in the text.

    Attributes:
        ngram_size: n, at least 1; 1 forbids every token of the text.
    """

    ngram_size: int

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        windows = len(tokens) - self.ngram_size + 1
        if windows <= 0:
            return logits
        matches = np.ones(windows, dtype=np.bool_)
        for offset in range(self.ngram_size - 1):
            matches &= tokens[offset : offset + windows] == tokens[windows + offset]
        shaped = logits.copy()
        shaped[_within(tokens[self.ngram_size - 1 :][matches], len(logits))] = -np.inf
        return cast(Logits, shaped)


def _within(tokens: NDArray[np.int64], vocab_size: int) -> NDArray[np.int64]:
    # Some models embed more tokens (images, padding) than they have logits for; those can never be emitted.
    return tokens[tokens < vocab_size]
