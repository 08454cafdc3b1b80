"""What Token Recycling remembers: the best ids after each token (see ``token_recycling``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unspool.engine import arrays
from unspool.errors import UnspoolError

EMPTY = -1
"""Entry of a row that was never written."""


class RecyclingMatrix:
    """The ids that the target last ranked highest after each token, int32 [vocabulary, k]; a ``Memory``, shareable.

    Takes 4 k bytes per token of the vocabulary (4.6 MiB for 152 000 tokens), from the first update on.

    Args:
        k: ids kept after each token, at least 1.
        vocab_size: width of a row of logits; None: that of the first model that updates it.
    """

    def __init__(self, k: int = 8, vocab_size: int | None = None) -> None:
        if k < 1:
            raise UnspoolError(f"k must be at least 1, not {k}")
        self.k = k
        self._rows: NDArray[np.int32] | None = None
        if vocab_size is not None:
            self.fit(vocab_size)

    @property
    def vocab_size(self) -> int | None:
        """Number of rows; None before the first update."""
        return None if self._rows is None else len(self._rows)

    def fit(self, vocab_size: int) -> None:
        """Fix the matrix to the size of a model's vocabulary.

        Raises:
            UnspoolError: if the matrix was learned on a vocabulary of another size.
        """
        if self._rows is None:
            self._rows = np.full((vocab_size, self.k), EMPTY, dtype=np.int32)
        elif len(self._rows) != vocab_size:
            raise UnspoolError(
                f"this recycling matrix was learned on a vocabulary of {len(self._rows)} tokens but the model has "
                f"{vocab_size}; reset it or use one matrix per model"
            )

    def row(self, token: int) -> list[int]:
        """The ids kept after ``token``, best first; empty if it was never scored."""
        if self._rows is None:
            return []
        ids: list[int] = self._rows[token].tolist()
        return [token for token in ids if token != EMPTY] if EMPTY in ids else ids

    def update(self, tokens: Sequence[int] | NDArray[np.int64], ids: NDArray[np.int64], vocab_size: int) -> None:
        """Overwrite rows; if a token is repeated, its last row wins.

        Args:
            tokens: [n] the tokens that were scored.
            ids: [n, k] best ids after each, best first; fewer columns only if the vocabulary is smaller than ``k``.
            vocab_size: of the model that scored them.

        Raises:
            UnspoolError: see ``fit``.
        """
        self.fit(vocab_size)
        assert self._rows is not None
        # numpy assigns repeated indices in order, so the last one wins.
        self._rows[np.asarray(tokens), : ids.shape[1]] = ids

    def reset(self) -> None:
        """Forget everything, including the size of the vocabulary."""
        self._rows = None

    def save(self, path: Path) -> None:
        """Write the filled rows to an ``.npz`` file; replaces an existing file in one step."""
        rows = np.empty((0, self.k), np.int32) if self._rows is None else self._rows
        filled = np.flatnonzero((rows != EMPTY).any(axis=1))
        filled_rows = {"vocab_size": np.int64(len(rows)), "tokens": filled, "ids": rows[filled]}
        arrays.save(path, "recycling matrix", filled_rows)

    def load(self, path: Path) -> None:
        """Replace the contents with those of a file that ``save`` wrote.

        Raises:
            UnspoolError: if the file cannot be read or belongs to another ``k`` or vocabulary; nothing is changed then.
        """
        size, tokens, ids = arrays.load(path, "recycling matrix", ("vocab_size", "tokens", "ids"))
        vocab_size = int(size)
        if ids.shape != (len(tokens), self.k):
            raise UnspoolError(
                f"{path} does not contain rows of k = {self.k} ids; use a matrix of the k it was saved with"
            )
        if any(
            part.size and (part.min() < low or part.max() >= vocab_size) for part, low in ((tokens, 0), (ids, EMPTY))
        ):
            raise UnspoolError(f"{path} contains ids outside its vocabulary; delete it and start with a new one")
        if vocab_size:
            self.fit(vocab_size)
        if self._rows is not None:
            self._rows.fill(EMPTY)
            self._rows[tokens] = ids
