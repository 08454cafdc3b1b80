"""Checks of an ensemble: its logits are the combination of its members', for every node, after any commits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unspool.conformance.check import CheckFailed, require
from unspool.conformance.taps import opened
from unspool.engine.ensemble import Combine, Ensemble, EnsembleSession
from unspool.engine.tree import TokenTree


def check(ensemble: Ensemble, combine: Combine, text: Sequence[int], tree: TokenTree, bound: float = 0.0) -> None:
    """Logits are combined, node by node; sessions of one ensemble are independent.

    Args:
        combine: what the ensemble was made with.
        text: at least two ids.
        tree: with branches; its root follows the text.
        bound: most that logits may differ by where sums are grouped in another way.
    """
    session = opened(ensemble, None, text)
    members = [opened(member.model, None, [*member.prefix, *text]) for member in ensemble.members]
    expected = combine([member.score(tree).logits.copy() for member in members])
    require(session.length == len(text), "the text has another length")
    together = ensemble.score_many([opened(ensemble, None, text[:-1]), session], [tree, tree])[1].logits
    for found in (session.score(tree).logits, session.fork().score(tree).logits, together):
        require(np.abs(found - expected).max() <= bound, "the logits are not the combination of the members'")
    rows = [0, len(tree) - 1]
    require(np.abs(session.score(tree, rows).logits - expected[rows]).max() <= bound, "rows are mixed up")
    path = tree.path(len(tree) - 1)
    twin = session.fork()
    session.score(tree)
    session.commit(path)
    _continues(ensemble, session, [*text, *(tree.tokens[node] for node in path)], bound)
    _continues(ensemble, twin, list(text), bound)
    session.rewind(len(text) - 1)
    _continues(ensemble, session, list(text[:-1]), bound)
    session.close()
    _continues(ensemble, twin, list(text), bound)


def _continues(ensemble: Ensemble, session: object, text: Sequence[int], bound: float) -> None:
    """As an ensemble session does that has just read the text."""
    if not isinstance(session, EnsembleSession) or session.length != len(text):
        raise CheckFailed("the text has another length")
    probe = TokenTree.chain([text[0]])
    found = session.score(probe).logits.copy()
    right = opened(ensemble, None, text).score(probe).logits
    require(np.abs(found - right).max() <= bound, "the session contains another text")
