"""The table that ADED searches: the probability of each token after a pair of tokens (see ``aded``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.engine import arrays
from unspool.errors import UnspoolError

SUCCESSORS = 12
"""Successors of a pair that are kept from a corpus."""

CAP = 3.0
"""No trigram is raised above this."""

_BITS = 21  # of a token id: three ids fit into 63 bits
_BLOCK = 1 << 22  # trigrams counted at once


class TrigramTable:
    """Values of trigrams: fixed ones from a corpus, and ones from decoded text that grow with each use; a ``Memory``.

    A corpus takes 16 bytes per pair and 8 per successor. What is learned from text takes about 400 bytes per pair. At
    the capacity, the pair that was raised longest ago returns to its corpus values.

    Args:
        capacity: most pairs learned from text.
    """

    def __init__(self, capacity: int = 1 << 16) -> None:
        if capacity < 1:
            raise UnspoolError(f"capacity must be at least 1, not {capacity}")
        self.capacity = capacity
        self.reset()

    @classmethod
    def from_corpus(cls, documents: Iterable[Sequence[int] | NDArray[Any]], capacity: int = 1 << 16) -> TrigramTable:
        """A table of documents tokenised with the target's own tokenizer; see ``count``."""
        table = cls(capacity)
        table.count(documents)
        return table

    def reset(self) -> None:
        """Forget everything, including the corpus and the size of the vocabulary."""
        self.vocab_size: int | None = None
        self._learned: dict[int, dict[int, float]] = {}  # pair -> values; the pair raised longest ago comes first
        none = np.empty(0, np.int64)
        self._set_corpus(none, np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))

    def _set_corpus(self, pairs: NDArray[Any], starts: NDArray[Any], ids: NDArray[Any], values: NDArray[Any]) -> None:
        self._pairs, self._starts, self._ids, self._values = pairs, starts, ids, values

    def __len__(self) -> int:
        """Number of known pairs."""
        return len(self._pairs) + sum(not self._of_corpus(pair) for pair in self._learned)

    @property
    def has_corpus(self) -> bool:
        """Whether documents were counted."""
        return len(self._pairs) > 0

    @staticmethod
    def pair(first: Any, second: Any) -> Any:
        """The key of two ids, or of two arrays of ids."""
        return first << _BITS | second

    def fit(self, vocab_size: int) -> None:
        """Fix the table to the size of a model's vocabulary.

        Raises:
            UnspoolError: if the table was learned on a vocabulary of another size, or its corpus has larger ids.
        """
        if self.vocab_size not in (None, vocab_size):
            raise UnspoolError(
                f"this trigram table was learned on a vocabulary of {self.vocab_size} tokens but the model has "
                f"{vocab_size}; reset it or use one table per model"
            )
        if len(self._ids) and int(self._ids.max()) >= vocab_size:
            raise UnspoolError(
                f"this trigram table contains token {int(self._ids.max())} but the model has {vocab_size} tokens; "
                "count a corpus that is tokenised with the model's own tokenizer"
            )
        self.vocab_size = vocab_size

    def count(self, documents: Iterable[Sequence[int] | NDArray[Any]]) -> None:
        """Replace the corpus: keeps the twelve most likely successors of each pair and their probabilities.

        Probabilities are relative to all successors, so they sum to 1 only if no more than twelve were seen.

        Args:
            documents: token ids; no trigram crosses from one document into the next.

        Raises:
            UnspoolError: for an id outside the vocabulary; nothing is changed then.
        """
        codes, counts = np.empty(0, np.int64), np.empty(0, np.int64)
        waiting: list[NDArray[np.int64]] = []
        for document in documents:
            trigrams = self._codes(np.asarray(document, dtype=np.int64))
            waiting.append(trigrams)
            if sum(map(len, waiting)) >= _BLOCK:
                codes, counts = _added(codes, counts, np.concatenate(waiting))
                waiting = []
        if waiting:
            codes, counts = _added(codes, counts, np.concatenate(waiting))
        pairs, ids = codes >> _BITS, codes & ((1 << _BITS) - 1)
        order = np.lexsort((ids, -counts, pairs))
        pairs, ids, counts = pairs[order], ids[order], counts[order]
        unique, first, sizes = np.unique(pairs, return_index=True, return_counts=True)
        totals = np.add.reduceat(counts, first) if len(first) else counts
        kept = np.arange(len(pairs)) - np.repeat(first, sizes) < SUCCESSORS
        chances = (counts / np.repeat(totals, sizes))[kept].astype(np.float32)
        starts = np.concatenate(([0], np.cumsum(np.minimum(sizes, SUCCESSORS))))
        self._set_corpus(unique, starts, ids[kept].astype(np.int32), chances)

    def _codes(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        end = self.vocab_size or 1 << _BITS
        if len(ids) and (ids.min() < 0 or ids.max() >= end):
            raise UnspoolError(
                f"a document has ids from {int(ids.min())} to {int(ids.max())}, which must lie in 0 to {end - 1}; "
                "tokenise it with the model's own tokenizer"
            )
        codes: NDArray[np.int64] = self.pair(ids[:-2], ids[1:-1]) << _BITS | ids[2:]
        return codes

    def _of_corpus(self, pair: int) -> list[tuple[int, float]]:
        row = int(np.searchsorted(self._pairs, pair))
        if row == len(self._pairs) or self._pairs[row] != pair:
            return []
        part = slice(int(self._starts[row]), int(self._starts[row + 1]))
        return list(zip(self._ids[part].tolist(), self._values[part].tolist(), strict=True))

    def successors(self, first: int, second: int) -> list[tuple[int, float]]:
        """Ids and values of what may follow a pair, largest value first; ties by lowest id."""
        pair = self.pair(first, second)
        values = self._learned.get(pair)
        if values is None:
            return self._of_corpus(pair)  # already in this order
        return sorted(values.items(), key=lambda item: (-item[1], item[0]))

    def reinforce(self, tokens: Sequence[int], increment: float) -> None:
        """Raise the value of every trigram of ``tokens``."""
        for first, second, third in zip(tokens, tokens[1:], tokens[2:], strict=False):
            pair = self.pair(first, second)
            values = self._learned.pop(pair, None)
            if values is None:
                values = dict(self._of_corpus(pair))
            values[third] = min(CAP, values.get(third, 0.0) + increment)
            self._learned[pair] = values
        for pair in list(islice(self._learned, max(0, len(self._learned) - self.capacity))):
            del self._learned[pair]

    def save(self, path: Path) -> None:
        """Write everything to an ``.npz`` file; replaces an existing file in one step."""
        rows = list(self._learned.values())
        content = {
            "vocab_size": np.int64(self.vocab_size or 0),
            "pairs": self._pairs,
            "starts": self._starts,
            "ids": self._ids,
            "values": self._values,
            "learned_pairs": np.array(list(self._learned), np.int64),
            "learned_starts": np.cumsum([0, *map(len, rows)]),
            "learned_ids": np.array([token for row in rows for token in row], np.int32),
            "learned_values": np.array([value for row in rows for value in row.values()], np.float64),
        }
        arrays.save(path, "trigram table", content)

    def load(self, path: Path) -> None:
        """Replace the contents with those of a file that ``save`` wrote; above the capacity the oldest are dropped.

        Raises:
            UnspoolError: if the file cannot be read or belongs to another vocabulary; nothing is changed then.
        """
        names = ("pairs", "starts", "ids", "values")
        found = arrays.load(path, "trigram table", ("vocab_size", *names, *(f"learned_{name}" for name in names)))
        vocab_size, corpus, learned = int(found[0]), found[1:5], found[5:]
        if vocab_size and self.vocab_size not in (None, vocab_size):
            raise UnspoolError(
                f"{path} was learned on a vocabulary of {vocab_size} tokens but the model has {self.vocab_size}; "
                "use one table per model"
            )
        for part in (corpus, learned):
            _check(path, self.vocab_size or vocab_size or 1 << _BITS, *part)
        self.vocab_size = self.vocab_size or vocab_size or None
        self._set_corpus(*corpus)
        pairs, starts, ids, values = (part.tolist() for part in learned)
        self._learned = {
            pair: dict(zip(ids[start:stop], values[start:stop], strict=True))
            for pair, start, stop in list(zip(pairs, starts, starts[1:], strict=False))[-self.capacity :]
        }


def _added(
    codes: NDArray[np.int64], counts: NDArray[np.int64], more: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts by code, ascending, with the counts of ``more`` added."""
    new, seen = np.unique(more, return_counts=True)
    both, place = np.unique(np.concatenate([codes, new]), return_inverse=True)
    totals = np.zeros(len(both), np.int64)
    np.add.at(totals, place, np.concatenate([counts, seen]))
    return both, totals


def _check(path: Path, vocab_size: int, pairs: Any, starts: Any, ids: Any, values: Any) -> None:
    """Refuse arrays that ``save`` cannot have written."""
    if not (
        pairs.ndim == ids.ndim == 1
        and ids.shape == values.shape
        and starts.shape == (len(pairs) + 1,)
        and starts[0] == 0
        and starts[-1] == len(ids)
        and (np.diff(starts) > 0).all()
    ):
        raise UnspoolError(f"{path} is not a saved trigram table; delete it and start with a new one")
    if len(ids) and (ids.min() < 0 or ids.max() >= vocab_size):
        raise UnspoolError(f"{path} contains ids outside its vocabulary; delete it and start with a new one")
