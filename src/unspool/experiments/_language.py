"""A language small enough to score every text: the target distribution of grammar-aligned samplers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unspool import methods
from unspool.decoding.model import Model
from unspool.engine.autoregressive import extend
from unspool.engine.method import CONSTRAINT
from unspool.engine.numeric import softmax
from unspool.engine.tree import TokenTree
from unspool.methods.sampling._trie import AlignedTrie

PROMPT, REGEX = "Write five random binary digits, like 01001, and nothing else.", "[01]{5}"
Path = tuple[int, ...]


@dataclass(frozen=True)
class Language:
    """Every text of a small language, in all its spellings by tokens.

    Attributes:
        ids: of the prompt.
        p: [vocabulary] of the model, after each path that a text may begin with.
        legal: tokens that may follow each of them.
        exact: probability of each text, given the language.
        mass: of the language under the model.
    """

    ids: list[int]
    p: dict[Path, NDArray[np.float64]]
    legal: dict[Path, list[int]]
    exact: dict[Path, float]
    mass: float

    @property
    def longest(self) -> int:
        """Tokens of the longest text, its end included."""
        return max(map(len, self.exact))

    def next_draw(self, trie: AlignedTrie | None) -> dict[Path, float]:
        """What masking draws from (without a trie), or ``asap`` with this one."""
        found: dict[Path, float] = {}

        def follow(path: Path, q: float) -> None:
            if path not in self.legal:
                found[path] = q
                return
            bounds = (trie.bounds(path) if trie else None) or {}
            weights = [self.p[path][token] * math.exp(bounds.get(token, 0.0)) for token in self.legal[path]]
            for token, weight in zip(self.legal[path], weights, strict=True):
                follow((*path, token), q * weight / sum(weights))

        follow((), 1.0)
        return found


def enumerate_language(model: Model) -> Language:
    """Walk the grammar without the model, then score the whole tree of prefixes in one pass."""
    ids = model.encode(PROMPT)
    grammar = methods.build("grammar", CONSTRAINT, model.resources(), {"regex": REGEX})(ids)
    legal: dict[Path, list[int]] = {}
    waiting: list[Path] = [()]
    while waiting:
        path = waiting.pop()
        mask = grammar.allowed(path)
        assert mask is not None
        legal[path] = np.flatnonzero(mask).tolist()
        waiting += [(*path, token) for token in legal[path] if token not in model.eos_token_ids]
    order = sorted(legal, key=len)
    place = {path: node for node, path in enumerate(order)}
    session = model.language_model.open()
    extend(session, ids[:-1])
    tokens = tuple(path[-1] if path else ids[-1] for path in order)
    parents = tuple(place[path[:-1]] if path else -1 for path in order)
    logits = session.score(TokenTree(tokens, parents)).logits
    p = {path: softmax(logits[node].astype(np.float64)) for path, node in place.items()}
    session.close()
    chance: dict[Path, float] = {}

    def follow(path: Path, q: float) -> None:
        if path in legal:
            for token in legal[path]:
                follow((*path, token), q * float(p[path][token]))
        else:
            chance[path] = q

    follow((), 1.0)
    mass = sum(chance.values())
    return Language(ids, p, legal, {path: q / mass for path, q in chance.items()}, mass)


def divergence(p: Mapping[Path, float], q: Mapping[Path, float]) -> float:
    """KL(p || q) in nats."""
    return sum(value * float(np.log(value / q[path])) for path, value in p.items() if value)


def distance(seen: Sequence[Path], exact: Mapping[Path, float]) -> float:
    """Total variation of draws from a distribution."""
    counts = Counter(seen)
    return 0.5 * sum(abs(counts[path] / len(seen) - exact.get(path, 0.0)) for path in counts.keys() | exact.keys())


def distances_by_chance(count: int, exact: Mapping[Path, float], times: int = 2000) -> NDArray[np.float64]:
    """Distances of n draws from the distribution that they are compared with; seed 0."""
    chances = np.array(list(exact.values()))
    drawn = np.random.default_rng(0).multinomial(count, chances / chances.sum(), times)
    made: NDArray[np.float64] = 0.5 * np.abs(drawn / count - chances).sum(axis=1)
    return made
