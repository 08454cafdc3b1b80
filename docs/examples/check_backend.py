"""What a backend must get right, as one function: masks, positions, commit, rewind and fork.

Run it on your model before anything else; a drafter on a session with a wrong mask still gives fluent text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unspool.engine.contracts import LanguageModel, Session
from unspool.engine.tree import TokenTree


def check_backend(model: LanguageModel, prompt: Sequence[int], tolerance: float = 1e-4) -> None:
    """Compare a session with plain forwards of the same texts.

    Args:
        model: with a vocabulary of at least 4 and room for 8 tokens after the prompt.
        prompt: ids, at least two.
        tolerance: largest difference between two logits, for rounding: 1e-4 suits float32. Quantised weights need
            more, so check the backend in full precision first.

    Raises:
        AssertionError: says which call is wrong.
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
            assert difference <= tolerance, f"{what}: node {node} is off by {difference:.2g}"

    def ids(*offsets: int) -> tuple[int, ...]:
        return tuple((int(prompt[-1]) + offset) % model.vocab_size for offset in offsets)

    text = list(prompt)
    session = model.open()
    session.score(TokenTree.chain(text[:-1]), rows=())
    session.commit(range(len(text) - 1))
    assert session.length == len(text) - 1, "commit: wrong length after the prompt"

    # Branches below branches; the nodes of a path lie apart, and cousins hold equal tokens at unequal places.
    tree = TokenTree(ids(0, 1, 2, 3, 1, 2, 1), (-1, 0, 0, 1, 2, 4, 3))
    agree(session, tree, text, "score")
    agree(session, tree, text, "score again (the first pass must store nothing)")
    other = TokenTree(ids(0, 1, 3, 3, 1, 2, 1), tree.parents)  # node 2 changed: nodes 1, 3 and 6 must not notice
    before = np.array(session.score(tree, rows=(1, 3, 6)).logits, dtype=np.float64)
    after = np.array(session.score(other, rows=(1, 3, 6)).logits, dtype=np.float64)
    assert np.abs(before - after).max() <= tolerance, "score: a node sees its siblings or cousins"

    session.score(tree)
    session.commit((0, 2, 4, 5))
    text += [tree.tokens[node] for node in (2, 4, 5)]
    assert session.length == len(text), "commit: wrong length"
    text += ids(3)
    agree(session, TokenTree.chain(text[-1:]), text, "after commit")

    twin = session.fork()
    session.score(TokenTree.chain((text[-1], *ids(1))))
    session.commit((0, 1))
    agree(twin, TokenTree.chain(text[-1:]), text, "fork (the original has moved on)")
    session.rewind(len(prompt))
    assert session.length == len(prompt), "rewind: wrong length"
    agree(session, TokenTree.chain(text[len(prompt) : len(prompt) + 2]), text[: len(prompt) + 1], "after rewind")

    # Several sessions in one call must give what each gives alone, and each must still be able to commit its own.
    sessions, trees = [session, twin], [TokenTree(ids(1, 2, 3), (-1, 0, 0)), TokenTree.chain((text[-1], *ids(1)))]
    alone = [np.array(s.score(t).logits, dtype=np.float64) for s, t in zip(sessions, trees, strict=True)]
    together = model.score_many(sessions, trees)
    for row, (logits, scores) in enumerate(zip(alone, together, strict=True)):
        assert np.abs(logits - scores.logits).max() <= tolerance, f"score_many: row {row} differs from score"
    session.commit((0, 2))
    text = [*text[: len(prompt)], *ids(1, 3, 0)]
    agree(session, TokenTree.chain(text[-1:]), text, "commit after score_many")
    for one in sessions:
        one.close()
