"""What STAND remembers: after each n-gram, the mean of the target's distributions (see ``stand``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unspool.engine import arrays
from unspool.errors import UnspoolError

ORDERS = (4, 3, 2)
"""Lengths of the n-grams, in look-up order."""

KEPT = 10
"""Tokens kept after each n-gram."""

_EMPTY = -1
_FIRST_ROWS = 1024


class Entry(NamedTuple):
    """What is known after an n-gram.

    Attributes:
        order: length of the n-gram.
        ids: up to ``KEPT`` tokens, most likely first; ties by lowest id.
        probabilities: of these tokens, above 0; they sum to less than 1, as the rest of the vocabulary is not kept.
    """

    order: int
    ids: list[int]
    probabilities: list[float]


def check_orders(orders: Sequence[int]) -> None:
    """Refuse orders that are not lengths of n-grams, longest first."""
    if not orders or list(orders) != sorted(set(orders), reverse=True) or min(orders) < 1:
        raise UnspoolError(f"orders must be positive, without repetition and longest first, not {list(orders)}")


class NGramMemory:
    """Mean target distributions by n-gram, cut to ten tokens; a ``Memory``, shared by any sequences.

    An entry takes 84 bytes and about 200 more for its key. At the capacity, the entry updated longest ago is evicted.
    Reading changes nothing.

    Args:
        orders: lengths of the n-grams, longest first.
        capacity: most n-grams, over all lengths.
    """

    def __init__(self, orders: Sequence[int] = ORDERS, capacity: int = 1 << 18) -> None:
        check_orders(orders)
        if capacity < 1:
            raise UnspoolError(f"capacity must be at least 1, not {capacity}")
        self.orders = tuple(orders)
        self.capacity = capacity
        self.reset()

    def reset(self) -> None:
        """Forget everything, including the size of the vocabulary."""
        self.vocab_size: int | None = None
        self._rows: dict[tuple[int, ...], int] = {}  # n-gram -> row; the one updated longest ago comes first
        self._ids = np.empty((0, KEPT), np.int32)
        self._probabilities = np.empty((0, KEPT), np.float32)
        self._counts = np.empty(0, np.int32)

    def _grow(self, rows: int) -> None:
        more = rows - len(self._ids)
        self._ids = np.concatenate([self._ids, np.full((more, KEPT), _EMPTY, np.int32)])
        self._probabilities = np.concatenate([self._probabilities, np.zeros((more, KEPT), np.float32)])
        self._counts = np.concatenate([self._counts, np.zeros(more, np.int32)])

    def __len__(self) -> int:
        """Number of n-grams."""
        return len(self._rows)

    def fit(self, vocab_size: int) -> None:
        """Fix the memory to the size of a model's vocabulary.

        Raises:
            UnspoolError: if the memory was learned on a vocabulary of another size.
        """
        if self.vocab_size is None:
            self.vocab_size = vocab_size
        elif self.vocab_size != vocab_size:
            raise UnspoolError(
                f"this n-gram memory was learned on a vocabulary of {self.vocab_size} tokens but the model has "
                f"{vocab_size}; reset it or use one memory per model"
            )

    def lookup(self, text: tuple[int, ...]) -> Entry | None:
        """What is known after the longest n-gram that ends ``text``."""
        for order in self.orders:
            row = self._rows.get(text[-order:]) if len(text) >= order else None
            if row is not None:
                ids: list[int] = self._ids[row].tolist()
                size = ids.index(_EMPTY) if ids[-1] == _EMPTY else KEPT
                return Entry(order, ids[:size], self._probabilities[row, :size].tolist())
        return None

    def update(self, text: tuple[int, ...], observed: dict[int, float]) -> None:
        """Add a distribution to the mean of every n-gram that ends ``text``.

        Args:
            observed: the target's most likely tokens after ``text`` and their probabilities; others count as 0.
        """
        for order in self.orders:
            if len(text) >= order:
                self._merge(text[-order:], observed)

    def _merge(self, key: tuple[int, ...], observed: dict[int, float]) -> None:
        row = self._rows.pop(key, None)
        mean = observed
        if row is None:
            row = self._free_row()
        else:
            count = int(self._counts[row])
            mean = {token: p / (count + 1) for token, p in observed.items()}
            for token, p in zip(self._ids[row].tolist(), self._probabilities[row].tolist(), strict=True):
                if token != _EMPTY:
                    mean[token] = mean.get(token, 0.0) + p * count / (count + 1)
        self._rows[key] = row
        best = sorted(((p, token) for token, p in mean.items()), key=lambda item: (-item[0], item[1]))[:KEPT]
        # What float32 rounds to 0 could never be drawn.
        kept = [(p, token) for p, token in best if np.float32(p) > 0]
        self._ids[row, len(kept) :] = _EMPTY
        self._probabilities[row, len(kept) :] = 0
        if kept:
            self._probabilities[row, : len(kept)], self._ids[row, : len(kept)] = zip(*kept, strict=True)
        self._counts[row] += 1

    def _free_row(self) -> int:
        if len(self._rows) < self.capacity:
            if len(self._rows) == len(self._ids):
                self._grow(min(self.capacity, max(_FIRST_ROWS, 2 * len(self._ids))))
            return len(self._rows)
        row = self._rows.pop(next(iter(self._rows)))
        self._counts[row] = 0
        return row

    def save(self, path: Path) -> None:
        """Write everything to an ``.npz`` file; replaces an existing file in one step."""
        keys = np.full((len(self._rows), max(self.orders)), _EMPTY, np.int32)
        for i, key in enumerate(self._rows):
            keys[i, : len(key)] = key
        rows = list(self._rows.values())
        content = {
            "orders": np.array(self.orders),
            "vocab_size": np.int64(self.vocab_size or 0),
            "keys": keys,
            "ids": self._ids[rows],
            "probabilities": self._probabilities[rows],
            "counts": self._counts[rows],
        }
        arrays.save(path, "n-gram memory", content)

    def load(self, path: Path) -> None:
        """Replace the contents with those of a file that ``save`` wrote; above the capacity the oldest are dropped.

        Raises:
            UnspoolError: if the file cannot be read, or belongs to other orders or another vocabulary; nothing is
                changed then.
        """
        names = ("orders", "vocab_size", "keys", "ids", "probabilities", "counts")
        orders, vocab_size, keys, ids, probabilities, counts = arrays.load(path, "n-gram memory", names)
        if orders.tolist() != list(self.orders):
            raise UnspoolError(
                f"{path} contains n-grams of the orders {orders.tolist()}, not {list(self.orders)}; "
                "use a memory of the orders it was saved with"
            )
        _check(path, int(vocab_size), keys, ids, probabilities, counts)
        if vocab_size:
            self.fit(int(vocab_size))
        size = min(len(keys), self.capacity)
        keys, self._ids, self._probabilities, self._counts = (
            part[len(part) - size :] for part in (keys, ids, probabilities, counts)
        )
        self._rows = {tuple(token for token in key if token != _EMPTY): row for row, key in enumerate(keys.tolist())}


def _check(path: Path, vocab_size: int, keys: Any, ids: Any, probabilities: NDArray[Any], counts: NDArray[Any]) -> None:
    n = len(keys)
    if not (ids.shape == probabilities.shape == (n, KEPT) and counts.shape == (n,) and keys.ndim == 2):
        raise UnspoolError(f"{path} is not a saved n-gram memory; delete it and start with a new one")
    if n and (
        max(keys.max(), ids.max()) >= vocab_size
        or min(keys.min(), ids.min()) < _EMPTY
        or not ((probabilities > 0) == (ids != _EMPTY)).all()
    ):
        raise UnspoolError(f"{path} contains ids outside its vocabulary; delete it and start with a new one")
