"""Checks of a constraint alone: the mask at a node of a tree equals plain decoding's mask at the same place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from unspool import methods
from unspool.conformance.check import Row, options_of, require
from unspool.conformance.small_model import EOS, PIECES, load, resources
from unspool.engine.contracts import Constraint, TokenChecker
from unspool.engine.method import CONSTRAINT

Begin = Callable[[], Constraint]
Path = tuple[int, ...]


def begins(row: Row, which: int = 0) -> Begin:
    """Makes the constraint of a text after a prompt of the case."""
    model = load()
    prompt = model.encode(row.case.prompts[which])
    factory = methods.build(row.name, CONSTRAINT, resources(model), options_of(row))
    require(callable(factory), "build must return a function of the prompt's ids that makes a Constraint")
    return lambda: factory(prompt)


def everywhere(constraint: Constraint, path: Sequence[int]) -> NDArray[np.bool_]:
    """Its mask, where None is everything."""
    mask = constraint.allowed(path)
    if mask is None:
        return np.ones(len(PIECES), dtype=np.bool_)
    require(np.shape(mask) == (len(PIECES),), f"a mask has the shape {np.shape(mask)}, not ({len(PIECES)},)")
    return np.array(mask, dtype=np.bool_)


def committed(begin: Begin, path: Sequence[int]) -> NDArray[np.bool_]:
    """The mask after a path that was committed token by token: what plain decoding sees."""
    constraint = begin()
    for token in path:
        constraint.advance([token])
    return everywhere(constraint, ())


def walk(begin: Begin, width: int, depth: int) -> list[Path]:
    """Paths that may be drafted, siblings included: every first token, and a few after each of some of them."""
    rng = np.random.default_rng(1)
    level: list[Path] = [()]
    paths = level[:]
    for length in range(depth):
        following = []
        for path in level:
            tokens = np.setdiff1d(np.flatnonzero(committed(begin, path)), [EOS])
            following += [(*path, int(token)) for token in rng.permutation(tokens)[: width if length else None]]
        paths += following[: 4 * width] if length else following
        level = following[: 4 * width]
    return paths


def spelled(path: Sequence[int]) -> str:
    """A path as a user reads it."""
    return repr("".join(PIECES[token] for token in path))


def masks_of_a_tree_are_those_of_committed_paths(row: Row) -> None:
    """The mask after drafted tokens equals the mask after the same tokens committed, in any order of queries."""
    for which in (0, 1):
        begin = begins(row, which)
        paths = walk(begin, width=3, depth=4)
        right = {path: committed(begin, path) for path in paths}
        asked, rng = begin(), np.random.default_rng(2)
        for i in rng.permutation(np.repeat(np.arange(len(paths)), 2)):
            path = paths[i]
            require(np.array_equal(everywhere(asked, path), right[path]), f"the mask after {spelled(path)} differs")
            # After a token that may not follow nothing is asked that matters, and nothing may be left of the question.
            for token in np.flatnonzero(~right[path])[:2]:
                asked.allowed((*path, int(token)))
            if isinstance(asked, TokenChecker):
                permitted = [asked.is_allowed(path, token) for token in range(len(PIECES))]
                require(permitted == right[path].tolist(), f"permits and allowed differ after {spelled(path)}")


def questions_leave_no_trace(row: Row) -> None:
    """Queries about drafts affect neither the committed state nor another sequence."""
    begin = begins(row)
    paths = [path for path in walk(begin, width=3, depth=4) if path]
    for path in paths[:: max(1, len(paths) // 12)]:
        one, other = begin(), begin()
        for sibling in [(), *paths]:
            one.allowed(sibling)
        require(list(one.forced()) == list(begin().forced()), "questions change what is forced")
        one.advance(path)
        require(np.array_equal(everywhere(one, ()), committed(begin, path)), "questions change what is committed")
        require(np.array_equal(everywhere(other, ()), committed(begin, ())), "two sequences share their state")


def forced_tokens_are_all_that_may_follow(row: Row) -> None:
    """If tokens are forced, the mask allows nothing else."""
    begin = begins(row)
    for path in walk(begin, width=3, depth=4):
        constraint = begin()
        constraint.advance(path)
        forced = [int(token) for token in constraint.forced()]
        for length, token in enumerate(forced):
            allowed = np.flatnonzero(everywhere(constraint, forced[:length])).tolist()
            require(allowed == [token], f"{PIECES[token]!r} is forced after {spelled([*path, *forced[:length]])}, but "
                    f"{len(allowed)} tokens are allowed")  # fmt: skip


def some_token_may_follow(row: Row) -> None:
    """After every allowed path some token is allowed: the model has to continue."""
    begin = begins(row)
    for path in walk(begin, width=3, depth=5):
        require(committed(begin, path).any(), f"no token is allowed after {spelled(path)}")


def texts_end_only_where_they_are_complete(row: Row) -> None:
    """If the case declares complete outputs, the end token is allowed after these and nowhere else."""
    begin = begins(row)
    verdicts = []
    for path in walk(begin, width=4, depth=5):
        text = "".join(PIECES[token] for token in path)
        complete = row.case.complete(text)
        if complete is not None:
            verdicts.append(complete)
            ends = bool(everywhere(begin(), path)[EOS])
            require(ends == complete, f"the text may {'' if ends else 'not '}end after {text!r}")
    require(not verdicts or {True, False} <= {*verdicts}, "its case calls every text complete, or none")


CHECKS = (
    masks_of_a_tree_are_those_of_committed_paths,
    questions_leave_no_trace,
    forced_tokens_are_all_that_may_follow,
    some_token_may_follow,
    texts_end_only_where_they_are_complete,
)
