"""Every registered constraint at the nodes of trees: a mask there is the mask of plain decoding at the same place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conformance.cases import case, rows, shared_answers
from tests.conformance.small_model import EOS, load
from unspool import methods
from unspool.engine.contracts import Constraint, Permitting
from unspool.engine.method import CONSTRAINT
from unspool.methods import Method

parametrize_constraints = pytest.mark.parametrize("row", rows(CONSTRAINT))


@pytest.fixture(scope="module", autouse=True)
def quick_analyser() -> Iterator[None]:
    with shared_answers():
        yield


def walk(begin: Callable[[], Constraint], width: int, depth: int) -> list[tuple[int, ...]]:
    """Paths that may be drafted, siblings included."""
    rng = np.random.default_rng(1)
    level: list[tuple[int, ...]] = [()]
    paths = level[:]
    for _ in range(depth):
        following = []
        for path in level:
            tokens = np.setdiff1d(np.flatnonzero(committed(begin, path)), [EOS])
            following += [(*path, int(token)) for token in rng.permutation(tokens)[:width]]
        level = following[: 4 * width]
        paths += level
    return paths


def everywhere(constraint: Constraint, path: Sequence[int]) -> NDArray[np.bool_]:
    """Its mask, where None is everything."""
    mask = constraint.allowed(path)
    return np.ones(load().language_model.vocab_size, dtype=np.bool_) if mask is None else mask.copy()


def committed(begin: Callable[[], Constraint], path: Sequence[int]) -> NDArray[np.bool_]:
    """The mask behind a path that was committed token by token: what plain decoding sees."""
    constraint = begin()
    for token in path:
        constraint.advance([token])
    return everywhere(constraint, ())


def begins(row: Method, which: int = 0) -> tuple[Callable[[], Constraint], Callable[[Sequence[int]], str]]:
    model = load()
    prompt = model.encode(case(row).prompts[which])
    factory = methods.build(row.name, CONSTRAINT, model.resources(), case(row).options)
    return lambda: factory(prompt), model.tokenizer.decode


@pytest.mark.parametrize("which", [0, 1])
@parametrize_constraints
def test_masks_of_a_tree_are_those_of_committed_paths(row: Method, which: int) -> None:
    begin, _ = begins(row, which)
    paths = walk(begin, width=3, depth=4)
    right = {path: committed(begin, path) for path in paths}
    assert len({mask.tobytes() for mask in right.values()}) > 2, "masks differ along the tree"
    asked, rng = begin(), np.random.default_rng(2)
    for i in rng.permutation(np.repeat(np.arange(len(paths)), 2)):
        path = paths[i]
        assert np.array_equal(everywhere(asked, path), right[path]), path
        # Behind a token that may not follow nothing is asked that matters, and nothing may be left of the question.
        for token in np.flatnonzero(~right[path])[:2]:
            asked.allowed((*path, int(token)))
        if isinstance(asked, Permitting):
            tokens = range(len(right[path]))
            assert [asked.permits(path, token) for token in tokens] == right[path].tolist(), path


@parametrize_constraints
def test_what_was_asked_leaves_no_trace_in_what_is_committed(row: Method) -> None:
    begin, _ = begins(row)
    paths = [path for path in walk(begin, width=3, depth=4) if path]
    for path in paths[:: max(1, len(paths) // 12)]:
        one, other = begin(), begin()
        for sibling in [(), *paths]:
            one.allowed(sibling)
        assert list(one.forced()) == list(begin().forced())
        one.advance(path)
        assert np.array_equal(everywhere(one, ()), committed(begin, path)), "drafts of others show"
        assert np.array_equal(everywhere(other, ()), committed(begin, ())), "two sequences share their state"


@parametrize_constraints
def test_what_is_forced_is_all_that_may_follow(row: Method) -> None:
    begin, _ = begins(row)
    for path in walk(begin, width=3, depth=4):
        constraint = begin()
        constraint.advance(path)
        forced = [int(token) for token in constraint.forced()]
        for length, token in enumerate(forced):
            assert np.flatnonzero(everywhere(constraint, forced[:length])).tolist() == [token], (path, forced)


@parametrize_constraints
def test_the_end_may_come_only_where_a_text_is_complete(row: Method) -> None:
    begin, text = begins(row)
    verdicts = []
    for path in walk(begin, width=4, depth=5):
        complete = case(row).complete(text(path))
        if complete is not None:
            verdicts.append(complete)
            assert everywhere(begin(), path)[EOS] == complete, text(path)
    assert {True, False} <= set(verdicts), "the case tells of both"
