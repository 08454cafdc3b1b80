"""Checks of a backend's session: a token's logits do not depend on how the text got into the cache.

A text is scored by trees whose right path lies between wrong drafts, after texts that were stored and rewound, on forks
and beside them. This detects a cache that keeps a rejected draft, loses or shifts an entry, mixes up siblings or
positions, or has stale entries after a rewind. ``check_backend`` compares with plain forwards, ``proof.session`` with
single-node passes, up to the backend's rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from unspool.conformance.check import require
from unspool.conformance.passes import prefilled, scored, store
from unspool.engine.contracts import LanguageModel, Logits, Session
from unspool.engine.tree import TokenTree

_DEPTH = 4  # levels of a tree, root included
_JUNK = 3  # tokens that are stored and must leave no trace

Way = Callable[[LanguageModel, Sequence[int], Sequence[int]], Iterator[Logits]]
"""Gives the logits [vocabulary] that decide each token of an output, from a model, a prompt and the output."""


def check_backend(model: LanguageModel, prompt: Sequence[int], tolerance: float = 1e-4) -> None:
    """Compare a session with plain forwards of the same texts.

    Args:
        model: with a vocabulary of at least 4 and room for 8 tokens after the prompt.
        prompt: ids, at least two.
        tolerance: largest difference between two logits, for rounding: 1e-4 suits float32. Quantised weights need
            more, so check the backend in full precision first.

    Raises:
        CheckFailed: says which call is wrong.
    """

    def plain(text: Sequence[int]) -> NDArray[np.float64]:
        """Logits after a text, as one chain in a fresh session: nothing is committed, no node branches."""
        session = model.open()
        logits = session.score(TokenTree.chain(text), rows=(len(text) - 1,)).logits
        row = np.array(logits[0], dtype=np.float64)
        session.close()
        return row

    def agree(session: Session, tree: TokenTree, text: Sequence[int], what: str) -> None:
        """Every node of the tree against the plain forward of ``text`` (which ends with the root) and its path."""
        logits = np.array(session.score(tree).logits, dtype=np.float64)
        for node in range(len(tree)):
            difference = np.abs(logits[node] - plain([*text, *tree.path_tokens(node)])).max()
            require(difference <= tolerance, f"{what}: node {node} is off by {difference:.2g}")

    def ids(*offsets: int) -> tuple[int, ...]:
        return tuple((int(prompt[-1]) + offset) % model.vocab_size for offset in offsets)

    text = list(prompt)
    session = model.open()
    session.score(TokenTree.chain(text[:-1]), rows=())
    session.commit(range(len(text) - 1))
    require(session.length == len(text) - 1, "commit: wrong length after the prompt")

    # Branches below branches; the nodes of a path lie apart, and cousins hold equal tokens at unequal places.
    tree = TokenTree(ids(0, 1, 2, 3, 1, 2, 1), (-1, 0, 0, 1, 2, 4, 3))
    agree(session, tree, text, "score")
    agree(session, tree, text, "score again (the first pass must store nothing)")
    other = TokenTree(ids(0, 1, 3, 3, 1, 2, 1), tree.parents)  # node 2 changed: nodes 1, 3 and 6 must not notice
    before = np.array(session.score(tree, rows=(1, 3, 6)).logits, dtype=np.float64)
    after = np.array(session.score(other, rows=(1, 3, 6)).logits, dtype=np.float64)
    require(np.abs(before - after).max() <= tolerance, "score: a node sees its siblings or cousins")

    session.score(tree)
    session.commit((0, 2, 4, 5))
    text += [tree.tokens[node] for node in (2, 4, 5)]
    require(session.length == len(text), "commit: wrong length")
    text += ids(3)
    agree(session, TokenTree.chain(text[-1:]), text, "after commit")

    twin = session.fork()
    session.score(TokenTree.chain((text[-1], *ids(1))))
    session.commit((0, 1))
    agree(twin, TokenTree.chain(text[-1:]), text, "fork (the original has moved on)")
    session.rewind(len(prompt))
    require(session.length == len(prompt), "rewind: wrong length")
    agree(session, TokenTree.chain(text[len(prompt) : len(prompt) + 2]), text[: len(prompt) + 1], "after rewind")

    # Several sessions in one call must give what each gives alone, and each must still be able to commit its own.
    sessions, trees = [session, twin], [TokenTree(ids(1, 2, 3), (-1, 0, 0)), TokenTree.chain((text[-1], *ids(1)))]
    alone = [np.array(s.score(t).logits, dtype=np.float64) for s, t in zip(sessions, trees, strict=True)]
    together = model.score_many(sessions, trees)
    for row, (logits, scores) in enumerate(zip(alone, together, strict=True)):
        require(np.abs(logits - scores.logits).max() <= tolerance, f"score_many: row {row} differs from score")
    session.commit((0, 2))
    text = [*text[: len(prompt)], *ids(1, 3, 0)]
    agree(session, TokenTree.chain(text[-1:]), text, "commit after score_many")
    for one in sessions:
        one.close()

    output = ids(1, 2, 3)
    expected = [plain([*prompt, *output[:i]]) for i in range(len(output))]
    for name, way in WAYS.items():
        for number, found in enumerate(way(model, prompt, output)):
            difference = np.abs(np.asarray(found, dtype=np.float64) - expected[number]).max()
            require(difference <= tolerance, f"{name}: token {number} is off by {difference:.2g}")


def _by_trees(model: LanguageModel, prompt: Sequence[int], output: Sequence[int]) -> Iterator[Logits]:
    with prefilled(model, prompt) as session:
        text = [prompt[-1], *output[:-1]]
        at = 0
        while at < len(text):
            levels = min(_DEPTH, session.max_depth, len(text) - at)
            tree, path = _between_wrong_drafts(text[at : at + levels], model.vocab_size)
            logits = scored(model, session, tree, path)
            for node in path:
                yield logits[node]
            at += levels


def _between_wrong_drafts(text: Sequence[int], vocab_size: int) -> tuple[TokenTree, list[int]]:
    """A tree with ``text`` as a path: each token between wrong siblings, which are drafted on with right tokens."""
    tokens, parents, path = [text[0]], [-1], [0]
    for level, token in enumerate(text[1:], 1):
        before, after = ((token + step) % vocab_size for step in (1, -1))
        first = len(tokens)
        tokens += [before, token, after]
        parents += path[-1:] * 3
        path.append(first + 1)
        if level + 1 < len(text):
            tokens += [text[level + 1]] * 2
            parents += [first, first + 2]
    return TokenTree(tuple(tokens), tuple(parents)), path


def _after_rewind(model: LanguageModel, prompt: Sequence[int], output: Sequence[int]) -> Iterator[Logits]:
    with prefilled(model, prompt) as session:
        for token, junk in _with_junk(model, prompt, output):
            length = session.length
            store(model, session, junk[: session.max_depth])
            session.rewind(length)
            yield scored(model, session, TokenTree.chain([token]), [0])[0]


def _on_forks(model: LanguageModel, prompt: Sequence[int], output: Sequence[int]) -> Iterator[Logits]:
    with prefilled(model, prompt) as session:
        for token, _ in _with_junk(model, prompt, output):
            with closing(session.fork()) as twin:
                yield scored(model, twin, TokenTree.chain([token]))[0]
            store(model, session, [token])


def _beside_forks(model: LanguageModel, prompt: Sequence[int], output: Sequence[int]) -> Iterator[Logits]:
    with prefilled(model, prompt) as session:
        for token, junk in _with_junk(model, prompt, output):
            with closing(session.fork()) as twin:
                store(model, twin, junk[: twin.max_depth])
                yield scored(model, session, TokenTree.chain([token]), [0])[0]


def _with_junk(model: LanguageModel, prompt: Sequence[int], output: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Each token that is scored, with others in its place that stay within the length of the output."""
    for index, token in enumerate((prompt[-1], *output[:-1])):
        yield token, [(token + 1 + i) % model.vocab_size for i in range(min(_JUNK, len(output) - index))]


WAYS: dict[str, Way] = {
    "trees": _by_trees,
    "rewind": _after_rewind,
    "fork": _on_forks,
    "beside a fork": _beside_forks,
}
"""Each way by its name."""
