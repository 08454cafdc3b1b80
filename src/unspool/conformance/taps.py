"""Checks of a backend's taps: states depend only on the path, not on its tree, and logits do not change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from unspool.conformance.check import CheckFailed, require
from unspool.engine.contracts import LanguageModel, Scores, Session
from unspool.engine.taps import Taps
from unspool.engine.tree import TokenTree
from unspool.errors import UnsupportedError

Expected = Callable[[Sequence[int], int], NDArray[np.floating]]
"""What a layer reads at the last token of a text."""


def check(
    model: LanguageModel,
    taps: Taps,
    text: Sequence[int],
    tree: TokenTree,
    bound: float = 0.0,
    expected: Expected | None = None,
) -> None:
    """Everything below.

    Args:
        taps: of ``positions="rows"``.
        text: at least two ids, committed before the tree.
        tree: with branches; its root follows the text.
        bound: most that states may differ by where sums are grouped in another way, and from those expected, as a share
            of their length.
        expected: another source of the states.
    """
    logits_stay(model, taps, text, tree)
    states_belong_to_paths(model, taps, text, tree, bound)
    rows_are_picked(model, taps, text, tree, bound)
    if expected is not None:
        states_are(model, taps, text, tree, bound, expected)
    what_is_not_there_is_refused(model)


def opened(model: LanguageModel, taps: Taps | None, text: Sequence[int]) -> Session:
    """A session that contains a text."""
    session = model.open(taps)
    while session.length < len(text):
        block = text[session.length : session.length + min(session.max_depth, 32)]
        session.score(TokenTree.chain(block), rows=())
        session.commit(range(len(block)))
    return session


def logits_stay(model: LanguageModel, taps: Taps, text: Sequence[int], tree: TokenTree) -> None:
    """The same bits with taps and without, in sessions that were opened before and after one with taps."""
    before = opened(model, None, text)
    plain = before.score(tree).logits.copy()
    tapped = opened(model, taps, text)
    for session in (tapped, tapped.fork(), before, opened(model, None, text)):
        require(np.array_equal(session.score(tree).logits, plain), "taps change logits")
    require(before.score(tree).hidden is None, "a session without taps has states")


def states_belong_to_paths(
    model: LanguageModel, taps: Taps, text: Sequence[int], tree: TokenTree, bound: float
) -> None:
    """The states of a node are those of its path alone, and of the path once it is committed."""
    together = _copied(opened(model, taps, text).score(tree))
    everything = None
    if any(layer >= 0 for layer in taps.layers):
        inner = replace(taps, layers=tuple(layer for layer in taps.layers if layer >= 0), positions="all")
        everything = _copied(opened(model, inner, text).score(tree, rows=()))
    for node in range(len(tree)):
        path = [tree.tokens[i] for i in tree.path(node)]
        chain = TokenTree.chain(path)
        alone = opened(model, taps, text).score(chain, rows=[len(path) - 1])
        _near(alone, 0, together, node, bound)
        if everything is not None:
            _near(everything, node, together, node, bound)
        if len(path) > 1:
            stored = opened(model, taps, [*text, *path[:-1]])
            _near(stored.score(TokenTree.chain(path[-1:])), 0, together, node, bound)


def rows_are_picked(model: LanguageModel, taps: Taps, text: Sequence[int], tree: TokenTree, bound: float) -> None:
    """Rows that are asked for have their own states, also where several sessions share a pass."""
    everything = _copied(opened(model, taps, text).score(tree))
    rows = sorted({0, len(tree) // 2, len(tree) - 1})
    sessions = [opened(model, taps, text), opened(model, None, text[:-1]), opened(model, taps, text)]
    first, second, third = model.score_many(sessions, [tree, TokenTree.chain([text[-1]]), tree], [rows, None, None])
    require(second.hidden is None, "states of one session are in another's scores")
    for place, node in enumerate(rows):
        _near(first, place, everything, node, bound)
    for node in range(len(tree)):
        _near(third, node, everything, node, bound)


def states_are(
    model: LanguageModel, taps: Taps, text: Sequence[int], tree: TokenTree, bound: float, expected: Expected
) -> None:
    """What another implementation says; the bound is a share of the states' length."""
    hidden = opened(model, taps, text).score(tree).hidden
    assert hidden is not None
    for node in range(len(tree)):
        whole = [*text, *(tree.tokens[i] for i in tree.path(node))]
        for layer in taps.layers:
            right = expected(whole, layer)
            off = np.linalg.norm(hidden[layer][node] - right) / max(np.linalg.norm(right), 1e-9)
            require(off <= bound, f"layer {layer}, node {node}: off by {off}")


def what_is_not_there_is_refused(model: LanguageModel) -> None:
    """A layer behind the last one, in one line."""
    try:
        model.open(Taps((model.layers,)))
    except UnsupportedError as error:
        require(str(model.layers) in str(error) and "\n" not in str(error), str(error))
    else:
        raise CheckFailed("a layer that is not there can be tapped")


def _copied(scores: Scores) -> Scores:
    if scores.hidden is None:
        raise CheckFailed("a session with taps has no states")
    return replace(scores, hidden={layer: states.copy() for layer, states in scores.hidden.items()})


def _near(one: Scores, row: int, other: Scores, place: int, bound: float) -> None:
    assert one.hidden is not None and other.hidden is not None
    for layer, states in one.hidden.items():
        off = np.abs(states[row] - other.hidden[layer][place]).max()
        require(off <= bound, f"the states of layer {layer} at node {place} depend on the tree ({off})")
