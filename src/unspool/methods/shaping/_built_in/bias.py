"""Additive biases on token sequences: ``sequence_bias`` and ``bad_words_ids``, as in transformers.

A bias belongs to a sequence of token ids and is added to the logit of the sequence's last token wherever the text
ends with the tokens before it. A sequence of one token is biased everywhere. A bad word is a bias of minus infinity.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from unspool.engine import numeric
from unspool.engine.contracts import Logits
from unspool.errors import UnspoolError


class SequenceBias:
    """Adds to the logit of each sequence's last token when the text ends with the rest of the sequence.

    Args:
        sequence_bias: token sequences and their biases, in logits. Biases of one token add up. -inf forbids; +inf
            forbids all other tokens; a forbidden token stays forbidden.
        option: name of the option, for error messages.

    Raises:
        UnspoolError: for an empty sequence or a negative id, and on the first call for an id outside the vocabulary.
    """

    def __init__(self, sequence_bias: Mapping[tuple[int, ...], float], option: str = "sequence_bias") -> None:
        self._option = option
        sequences = [_ids(sequence, option) for sequence in sequence_bias]
        biases = np.array(list(sequence_bias.values()), dtype=np.float64)
        self._largest = max((max(sequence) for sequence in sequences), default=-1)
        last = np.array([sequence[-1] for sequence in sequences], dtype=np.int64)
        # Only the last tokens of sequences can change: work on them, not on the vocabulary.
        self._tokens, slots = np.unique(last, return_inverse=True)
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        single = lengths == 1
        self._always = np.zeros(len(self._tokens))
        self._always[slots[single]] = biases[single]
        # In order of first appearance, the order in which transformers adds them up.
        self._groups = [
            (
                np.array([s[:-1] for s in sequences if len(s) == length], dtype=np.int64),
                slots[lengths == length],
                biases[lengths == length],
            )
            for length in dict.fromkeys(len(s) for s in sequences if len(s) > 1)
        ]

    def __call__(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        if self._largest >= len(logits):
            raise UnspoolError(
                f"{self._option} names token {self._largest}, but the model's vocabulary ends at {len(logits) - 1}; "
                "use ids of this model's tokenizer"
            )
        bias = self._bias(tokens, logits.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            shaped = logits.copy()
            shaped[self._tokens] += bias
        # A sum that is not a number: +inf and -inf have met, here or in the biases.
        if not abs(shaped.max()) <= numeric.RANGE:
            shaped = self._exact(tokens, logits)
        return cast(Logits, shaped)

    def _bias(self, tokens: NDArray[np.int64], dtype: np.dtype[Any]) -> NDArray[Any]:
        with np.errstate(over="ignore", invalid="ignore"):
            bias = self._always.astype(dtype)
            for prefixes, slots, biases in self._groups:
                width = prefixes.shape[1]
                if width <= len(tokens):
                    matched = (prefixes == tokens[-width:]).all(axis=1)
                    # Matching sequences of one length have different last tokens: no index occurs twice.
                    bias[slots[matched]] += biases[matched].astype(dtype)
        return bias

    def _exact(self, tokens: NDArray[np.int64], logits: Logits) -> Logits:
        """The sums in float64. Forbidden tokens stay forbidden; among tokens of bias +inf the logits decide."""
        bias = self._bias(tokens, np.dtype(np.float64))
        row = logits.astype(np.float64)
        at = row[self._tokens]
        forbidden = np.isneginf(bias) | np.isnan(bias) | np.isneginf(at)
        above = np.isposinf(bias) & ~forbidden
        if above.any():
            shaped = np.full_like(row, -np.inf)
            shaped[self._tokens[above]] = at[above]
        else:
            shaped = row
            shaped[self._tokens] = np.where(forbidden, -np.inf, at + np.where(forbidden, 0, bias))
        return shaped


def bad_words(bad_words_ids: Sequence[Sequence[int]], eos_token_id: Sequence[int] = ()) -> SequenceBias | None:
    """A shaper that keeps the token sequences ``bad_words_ids`` out of the text; None if nothing is left to forbid.

    Args:
        bad_words_ids: the sequences; of a longer one only the last token is forbidden, after the others.
        eos_token_id: ids that end the text; as in transformers they are never forbidden on their own.

    Raises:
        UnspoolError: as ``SequenceBias``.
    """
    ends = {(int(token),) for token in eos_token_id}
    words = dict.fromkeys(_ids(word, "bad_words_ids") for word in bad_words_ids)
    forbidden = {word: float("-inf") for word in words if word not in ends}
    return SequenceBias(forbidden, "bad_words_ids") if forbidden else None


def _ids(sequence: Sequence[int], option: str) -> tuple[int, ...]:
    try:
        ids = tuple(operator.index(token) for token in sequence)
    except TypeError:
        ids = ()
    if not ids or min(ids) < 0:
        raise UnspoolError(f"{option} takes non-empty sequences of token ids, each at least 0, not {sequence!r}")
    return ids
