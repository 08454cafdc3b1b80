"""What the samplers ``asap`` and ``cars`` remember: how much of the future of every prefix they met is allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from unspool.backends import store
from unspool.errors import UnspoolError

_NOTHING = 1e-12
"""Bounds below it are rounding."""


class _Prefix:
    """A prefix whose next-token distribution was seen.

    Attributes:
        legal: probability of all tokens that may follow.
        bound: upper bound of the chance that the text ends in the language.
        followed: children that were met as well, by token, with their probabilities.
    """

    __slots__ = ("bound", "followed", "legal")

    def __init__(self, legal: float) -> None:
        self.legal = self.bound = legal
        self.followed: dict[int, tuple[float, _Prefix]] = {}

    def update(self) -> None:
        """A child's bound fell. Tokens that were not followed are allowed for all that is known: their bound is 1."""
        bound = self.legal - sum(p * (1 - child.bound) for p, child in self.followed.values())
        self.bound = bound if bound > _NOTHING else 0.0


class AlignedTrie:
    """What samples of one prompt have shown. Keep it to go on where they ended.

    Args:
        about: what it belongs to (model, prompt, grammar, temperature); a trie is used with nothing else.
    """

    def __init__(self, about: str = "") -> None:
        self.about = about
        self._root: _Prefix | None = None
        self._size = 0

    def __len__(self) -> int:
        """Number of prefixes."""
        return self._size

    @property
    def bound(self) -> float:
        """Upper bound of the probability that the model, left alone, writes a text of the language."""
        return 1.0 if self._root is None else self._root.bound

    def bounds(self, path: Sequence[int]) -> Mapping[int, float] | None:
        """Bounds of the tokens that were followed behind a prefix; None if the prefix was not met."""
        nodes = self._walk(path)
        return None if nodes is None else {token: child.bound for token, (_, child) in nodes[-1].followed.items()}

    def add(self, path: Sequence[int], chance: float, legal: float) -> None:
        """A prefix was met; nothing happens if it had been before.

        Args:
            chance: probability of its last token; 1 for the empty prefix.
            legal: probability of all tokens that may follow.
        """
        if self._walk(path) is not None:
            return
        self._size += 1
        if not path:
            self._root = _Prefix(legal)
            return
        nodes = self._walk(path[:-1])
        if nodes is None:
            raise ValueError(f"the prefix {list(path)} was met before the one that it continues")
        nodes[-1].followed[path[-1]] = (chance, _Prefix(legal))
        for node in reversed(nodes):
            node.update()

    def _walk(self, path: Sequence[int]) -> list[_Prefix] | None:
        """The nodes from the root to ``path``."""
        if self._root is None:
            return None
        nodes = [self._root]
        for token in path:
            if token not in nodes[-1].followed:
                return None
            nodes.append(nodes[-1].followed[token][1])
        return nodes

    def save(self, file: Path) -> None:
        """Write it as JSON: one row a prefix, parents first: its parent's row, token, probability, allowed mass."""
        rows: list[tuple[int, int, float, float]] = []
        waiting = [(-1, -1, 1.0, self._root)] if self._root else []
        while waiting:
            parent, token, chance, node = waiting.pop()
            rows.append((parent, token, chance, node.legal))
            place = len(rows) - 1
            waiting += [(place, child, p, below) for child, (p, below) in node.followed.items()]
        with store.atomic_file(file) as part:
            part.write_text(json.dumps({"about": self.about, "prefixes": rows}), "utf-8")

    @classmethod
    def load(cls, file: Path) -> AlignedTrie:
        """Read what ``save`` wrote.

        Raises:
            UnspoolError: if the file cannot be read.
        """
        try:
            saved = json.loads(file.read_text("utf-8"))
            trie = cls(saved["about"])
            paths: list[tuple[int, ...]] = []
            for parent, token, chance, legal in saved["prefixes"]:
                paths.append(() if parent < 0 else (*paths[parent], token))
                trie.add(paths[-1], chance, legal)
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise UnspoolError(f"{file} is no trie that unspool wrote: {error}") from error
        return trie
