"""The toy model: its table is its distribution, and its cache shows every mistake in handling it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unspool.backends.toy import ToyBackend, ToyModel
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError

MODEL = ToyModel.random(seed=4, vocab_size=5, order=3, floor=0.02)


def probabilities(model: ToyModel, prompt: tuple[int, ...], tree: TokenTree) -> np.ndarray:
    session = model.open()
    session.score(TokenTree.chain(prompt))
    session.commit(range(len(prompt)))
    return np.exp(session.score(tree).logits)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_rows_are_distributions_above_the_floor(order: int) -> None:
    model = ToyModel.random(seed=1, vocab_size=6, order=order, floor=0.05)
    assert model.table.shape == (7,) * order + (6,)
    assert model.table.min() >= 0.05
    assert np.allclose(model.table.sum(axis=-1), 1, atol=1e-14)
    assert np.array_equal(model.table, ToyModel.random(seed=1, vocab_size=6, order=order, floor=0.05).table)
    assert not np.array_equal(model.table, ToyModel.random(seed=2, vocab_size=6, order=order, floor=0.05).table)


def test_probabilities_depend_on_the_last_tokens_alone() -> None:
    row = MODEL.probabilities((0, 1, 2, 3))
    assert np.array_equal(row, MODEL.probabilities((4, 4, 1, 2, 3)))
    for other in ((4, 2, 3), (1, 4, 3), (1, 2, 4), (2, 3)):
        assert not np.array_equal(row, MODEL.probabilities(other))


def test_distribution_is_the_product_of_conditionals() -> None:
    outputs = MODEL.distribution(3, (1, 2))
    assert len(outputs) == 125
    assert sum(outputs.values()) == pytest.approx(1, abs=1e-12)
    first, second, third = MODEL.probabilities((1, 2)), MODEL.probabilities((1, 2, 4)), MODEL.probabilities((2, 4, 0))
    assert outputs[4, 0, 3] == pytest.approx(first[4] * second[0] * third[3], rel=1e-12)


def test_distribution_ends_with_the_stop_token() -> None:
    outputs = MODEL.distribution(3, (1, 2), stop_token=0)
    assert sum(outputs.values()) == pytest.approx(1, abs=1e-12)
    assert all(0 not in output[:-1] for output in outputs)
    assert {len(output) for output in outputs if output[-1] != 0} == {3}
    assert outputs[(0,)] == MODEL.probabilities((1, 2))[0]


def test_distribution_leaves_out_what_cannot_happen() -> None:
    table = np.array([[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]])
    assert ToyModel(table).distribution(2, (0,)) == {(1, 0): 1.0}


def test_related_models_are_near_or_far() -> None:
    def distance(noise: float) -> float:
        return 0.5 * float(np.abs(MODEL.table - MODEL.related(noise, seed=1).table).sum(axis=-1).mean())

    assert distance(0.0) < 1e-15
    assert 0.005 < distance(0.1) < 0.1
    assert distance(3.0) > 0.5


def test_tree_nodes_are_scored_on_their_own_path() -> None:
    tree = TokenTree((2, 0, 4, 1, 3), (-1, 0, 0, 1, 2))
    rows = probabilities(MODEL, (1, 3), tree)
    for node in range(len(tree)):
        expected = MODEL.probabilities((1, 3, 2, *tree.path_tokens(node)))
        assert np.allclose(rows[node], expected, rtol=1e-14)


def test_asked_rows_alone_and_their_memory_is_reused() -> None:
    session = MODEL.open()
    tree = TokenTree((2, 0, 4), (-1, 0, 0))
    every = session.score(tree).logits.copy()
    scores = session.score(tree, rows=[2, 1])
    assert scores.rows == (1, 2)
    assert np.array_equal(scores.logits, every[1:])
    session.score(TokenTree.chain((3,)))
    assert not np.array_equal(scores.logits, every[1:])


def test_commit_of_a_path_equals_the_text() -> None:
    session = MODEL.open()
    session.score(TokenTree((2, 0, 4, 1, 3), (-1, 0, 0, 1, 2)))
    session.commit((0, 2, 4))
    assert session.length == 3
    assert np.allclose(np.exp(session.score(TokenTree.chain((1,))).logits[0]), MODEL.probabilities((2, 4, 3, 1)))


def test_commit_without_a_scored_tree_is_an_error() -> None:
    session = MODEL.open()
    session.score(TokenTree.chain((1, 2)))
    session.commit((0,))
    with pytest.raises(RuntimeError, match="commit needs a tree"):
        session.commit((0,))


def test_rewind_and_fork() -> None:
    session = MODEL.open()
    session.score(TokenTree.chain((0, 1, 2, 3)))
    session.commit(range(4))
    twin = session.fork()
    session.rewind(2)
    root = TokenTree.chain((4,))
    assert np.allclose(np.exp(session.score(root).logits[0]), MODEL.probabilities((0, 1, 4)))
    assert np.allclose(np.exp(twin.score(root).logits[0]), MODEL.probabilities((2, 3, 4)))


@pytest.mark.parametrize(
    "cache", [[(1, 0)], [(1, 0), (2, 1), (0, 1)], [(1, 0), (2, 2)], [(2, 1)], [(1, 0), (2, 1), (3, 2)]]
)
def test_any_damage_of_the_cache_shows(cache: list[tuple[int, int]]) -> None:
    session = MODEL.open()
    session.cache = cache
    assert not np.allclose(np.exp(session.score(TokenTree.chain((3,))).logits[0]), MODEL.probabilities((1, 2, 3)))


def test_score_many_equals_score() -> None:
    sessions = [MODEL.open(), MODEL.open()]
    for session, prompt in zip(sessions, ((1, 2, 3), (4,)), strict=True):
        session.score(TokenTree.chain(prompt))
        session.commit(range(len(prompt)))
    trees = [TokenTree.chain((0,)), TokenTree((2, 0, 4), (-1, 0, 0))]
    alone = [session.score(tree).logits.copy() for session, tree in zip(sessions, trees, strict=True)]
    together = MODEL.score_many(sessions, trees, [None, [2]])
    assert np.array_equal(together[0].logits, alone[0])
    assert np.array_equal(together[1].logits, alone[1][2:])


def test_backend_reads_the_directory(tmp_path: Path) -> None:
    (tmp_path / "toy.json").write_text(json.dumps({"seed": 9, "vocab_size": 5, "order": 1, "eos_token_id": 4}))
    model = ToyBackend().load(tmp_path, seed=3)
    assert model.eos_token_id == 4
    assert np.array_equal(model.table, ToyModel.random(3, vocab_size=5, order=1).table)
    assert model.settings["backend"] == ToyBackend.name == "toy"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "needs a toy.json"),
        ("{", "not valid JSON"),
        ("[1]", "must contain one JSON object"),
        ('{"sead": 1}', "unknown toy model option 'sead'"),
        ('{"vocab_size": 9}', "vocab_size of the toy model must lie in 2..8, not 9"),
        ('{"order": 4}', "order of the toy model must lie in 1..3, not 4"),
        ('{"floor": 0.5}', "floor of the toy model"),
        ('{"eos_token_id": 4}', "eos_token_id of the toy model must lie in 0..3, not 4"),
        ('{"floor": "low"}', "an invalid value"),
    ],
)
def test_backend_refuses_bad_files(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "toy.json").write_text(content)
    with pytest.raises(UnspoolError, match=message.replace("(", r"\(")):
        ToyBackend().load(tmp_path)


@pytest.mark.parametrize("table", [np.full((3, 2), 0.4), np.full((2, 2), 0.5), np.array([[1.5, -0.5]] * 3)])
def test_tables_must_be_distributions(table: np.ndarray) -> None:
    with pytest.raises(UnspoolError):
        ToyModel(table)
