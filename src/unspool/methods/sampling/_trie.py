"""What the samplers ``asap`` and ``cars`` remember: how much of the future of every seen prefix is allowed.

Masses are kept as logarithms, and followed ones apart from the rest. A bound is a sum of what is left, never one minus
what is gone, so that a language of probability 1e-40 is distinguished from an empty one.

A prefix takes about 300 bytes, and an attempt adds at most one for each of its tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from unspool.errors import UnspoolError
from unspool.storage import cache as store
from unspool.storage.text_files import parse_json

_FORMAT = 2


class _Prefix:
    """A prefix whose next-token distribution was seen. All masses are logarithms.

    Attributes:
        rest: probability of the tokens that may follow and have not been followed yet.
        bound: upper bound of the probability that the text ends in the language.
        followed: children that were seen too, by token, with their probabilities.
    """

    __slots__ = ("bound", "followed", "rest")

    def __init__(self, rest: float) -> None:
        self.rest = self.bound = rest
        self.followed: dict[int, tuple[float, _Prefix]] = {}

    def update(self) -> None:
        """Update the bound after a child's fell. Tokens that were not followed may be allowed: their bound is 1."""
        self.bound = log_sum([self.rest, *(p + child.bound for p, child in self.followed.values())])


def log_sum(masses: Iterable[float]) -> float:
    """The logarithm of a sum of numbers that are given as logarithms."""
    given = list(masses)
    top = max(given, default=-math.inf)
    return top if top == -math.inf else top + math.log(math.fsum(math.exp(mass - top) for mass in given))


class AlignedTrie:
    """What the samples of one prompt have shown. Keep it to continue where they ended.

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
        """Upper bound of the probability that the unconstrained model writes a text of the language."""
        return math.exp(self.log_bound)

    @property
    def log_bound(self) -> float:
        """Its logarithm, which is also exact where ``bound`` rounds to 0."""
        return 0.0 if self._root is None else self._root.bound

    def bounds(self, path: Sequence[int]) -> Mapping[int, float] | None:
        """Logarithms of the bounds of the tokens that were followed after a prefix; None if it was not seen."""
        nodes = self._walk(path)
        return None if nodes is None else {token: child.bound for token, (_, child) in nodes[-1].followed.items()}

    def add(self, path: Sequence[int], chance: float, rest: float) -> None:
        """Add a prefix. Call ``settle`` before reading bounds.

        Args:
            chance: logarithm of the probability of its last token; 0 for the empty prefix.
            rest: logarithm of the probability of all tokens that may follow and are not added too.
        """
        nodes = self._walk(path)
        if nodes is not None:
            nodes[-1].rest = rest
            return
        self._size += 1
        if not path:
            self._root = _Prefix(rest)
            return
        nodes = self._walk(path[:-1])
        if nodes is None:
            raise ValueError(f"the prefix {list(path)} was added before its parent")
        nodes[-1].followed[path[-1]] = (chance, _Prefix(rest))

    def warm_up(self, paths: Iterable[Sequence[int]]) -> None:
        """Update the bounds of these prefixes and of all their ancestors."""
        changed = {tuple(path[:length]) for path in paths for length in range(len(path) + 1)}
        for path in sorted(changed, key=len, reverse=True):
            if nodes := self._walk(path):
                nodes[-1].update()

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
        """Write it as JSON, one row per prefix, parents first: the parent's row, the token, and the logarithms of the
        probabilities of this token and of what may follow and was not followed; null is probability 0."""
        rows: list[tuple[int, int, float | None, float | None]] = []
        waiting = [(-1, -1, 0.0, self._root)] if self._root else []
        while waiting:
            parent, token, chance, node = waiting.pop()
            rows.append((parent, token, _written(chance), _written(node.rest)))
            place = len(rows) - 1
            waiting += [(place, child, p, below) for child, (p, below) in node.followed.items()]
        with store.atomic_file(file) as part:
            part.write_text(json.dumps({"format": _FORMAT, "about": self.about, "prefixes": rows}), "utf-8")

    @classmethod
    def load(cls, file: Path) -> AlignedTrie:
        """Read what ``save`` wrote.

        Raises:
            UnspoolError: if the file cannot be read.
        """
        try:
            saved = parse_json(file.read_text("utf-8"))
            if saved.get("format") != _FORMAT:
                raise UnspoolError(f"{file} was written by another version of unspool; sample again and save that")
            trie = cls(str(saved["about"]))
            nodes: list[_Prefix] = []
            for parent, token, chance, rest in saved["prefixes"]:
                node = _Prefix(_read(rest))
                if parent < 0 and nodes:
                    raise ValueError("it has two roots")
                if parent >= 0:
                    nodes[parent].followed[int(token)] = (_read(chance), node)
                nodes.append(node)
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise UnspoolError(f"{file} is not a trie written by unspool: {error}") from error
        for node in reversed(nodes):  # children come after their parents
            node.update()
        trie._root, trie._size = (nodes[0] if nodes else None), len(nodes)
        return trie


def _written(mass: float) -> float | None:
    return None if mass == -math.inf else mass


def _read(mass: float | None) -> float:
    if mass is None:
        return -math.inf
    if not mass <= 1e-6:
        raise ValueError(f"{mass} is not the logarithm of a probability")
    return float(mass)
