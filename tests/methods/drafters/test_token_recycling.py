"""Token Recycling: the paper's tree, what the matrix keeps, and its files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from unspool.engine import numeric
from unspool.engine.contracts import Context, Decision, Drafter, Memory
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError
from unspool.methods.drafters.token_recycling import TEMPLATE, TokenRecycling, TokenRecyclingOptions
from unspool.methods.drafters.token_recycling.matrix import RecyclingMatrix

VOCAB = 1000


@dataclass
class FakeStep:
    """A pass over ``tree`` in which the best ids after node i are ``best[i]``."""

    tree: TokenTree
    best: list[list[int]]
    vocab_size: int = VOCAB
    decision: Decision = field(default_factory=lambda: Decision((0,), 0))
    emitted: tuple[int, ...] = ()
    context: Context = field(default_factory=lambda: root(0))

    @property
    def logits(self) -> NDArray[np.float32]:
        logits = np.zeros((len(self.tree), self.vocab_size), dtype=np.float32)
        for row, ids in zip(logits, self.best, strict=True):
            row[ids] = np.arange(len(ids), 0, -1)
        return logits

    def top_k(self, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return numeric.top_k(self.logits, k)


def root(token: int) -> Context:
    return Context([7, token], 1, seed=0, temperature=0.0)


def full_matrix() -> RecyclingMatrix:
    """Every row is filled; the ids of a row are distinct."""
    memory = RecyclingMatrix()
    rng = np.random.default_rng(0)
    memory.update(np.arange(VOCAB), np.array([rng.choice(VOCAB, 8, replace=False) for _ in range(VOCAB)]), VOCAB)
    return memory


def test_template_is_the_papers_tree() -> None:
    assert Counter(map(len, TEMPLATE)) == {1: 8, 2: 21, 3: 25, 4: 15, 5: 8, 6: 3}
    assert len(set(TEMPLATE)) == 80
    counts = Counter(path[:-1] for path in TEMPLATE)
    by_layer = [sorted((c for p, c in counts.items() if len(p) == depth), reverse=True) for depth in range(6)]
    assert by_layer == [
        [8],
        [8, 4, 3, 2, 1, 1, 1, 1],
        [8, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        [5, 2, 1, 1, 1, 1, 1, 1, 1, 1],
        [3, 1, 1, 1, 1, 1],
        [2, 1],
    ]
    assert counts[1, 0] == 2
    assert counts[0, 0, 0, 1, 0] == 1


def test_every_prefix_of_the_template_is_a_tree_of_best_ranks() -> None:
    """Parents come before children, better ranks before worse ones under the same parent."""
    seen: set[tuple[int, ...]] = {()}
    for path in TEMPLATE:
        assert path[:-1] in seen
        assert path[-1] == 0 or (*path[:-1], path[-1] - 1) in seen
        seen.add(path)


def test_unrolls_the_matrix_along_the_template() -> None:
    memory = full_matrix()
    drafter: Drafter = TokenRecycling(memory=memory)
    tree = drafter.propose(root(3), 81)
    assert len(tree) == 81
    paths: dict[int, tuple[int, ...]] = {0: ()}
    for node in range(1, 81):
        parent, rank = tree.parents[node], tree.buckets[node]
        assert tree.tokens[node] == memory.row(tree.tokens[parent])[rank]
        paths[node] = (*paths[parent], rank)
    assert set(paths.values()) == {(), *TEMPLATE}
    assert {tree.source_names[source] for source in tree.sources[1:]} == {"token_recycling"}


def test_budget_and_root_are_kept() -> None:
    drafter = TokenRecycling(memory=full_matrix())
    whole = drafter.propose(root(3), 81)
    for budget in range(1, 82):
        tree = drafter.propose(root(3), budget)
        assert len(tree) == budget
        assert tree.tokens == whole.tokens[:budget]
        assert tree.parents == whole.parents[:budget]
        assert tree.tokens[0] == 3
    assert len(drafter.propose(root(3), 200)) == 81
    assert len(TokenRecycling(TokenRecyclingOptions(nodes=12), full_matrix()).propose(root(3), 81)) == 13


def test_fewer_ids_per_token_use_the_lower_ranks_of_the_template() -> None:
    drafter = TokenRecycling(TokenRecyclingOptions(k=2))
    drafter.memory.update(np.arange(4), np.array([[1, 2], [2, 3], [3, 0], [0, 1]]), 4)
    tree = drafter.propose(root(0), 81)
    assert len(tree) == 1 + sum(max(path) < 2 for path in TEMPLATE)


def test_nothing_is_drafted_from_rows_that_were_never_written() -> None:
    drafter = TokenRecycling(vocab_size=VOCAB)
    assert drafter.propose(root(3), 81).tokens == (3,)
    drafter.observe(FakeStep(TokenTree.chain([3]), [list(range(10, 18))]))
    tree = drafter.propose(root(3), 81)
    assert tree.tokens == (3, *range(10, 18))
    assert tree.parents == (-1,) + (0,) * 8
    assert drafter.propose(root(10), 81).tokens == (10,)


def test_id_0_is_drafted_where_it_was_wanted() -> None:
    drafter = TokenRecycling()
    drafter.observe(FakeStep(TokenTree.chain([3]), [[0, 9, 8, 7, 6, 5, 4, 2]]))
    assert drafter.propose(root(3), 2).tokens == (3, 0)


def test_repeated_siblings_are_one_node() -> None:
    """Rows that ``observe`` wrote hold distinct ids; others (random ones, say) need not."""
    memory = RecyclingMatrix()
    memory.update([3], np.array([[4, 4, 5, 4, 5, 4, 4, 4]]), VOCAB)
    memory.update([4], np.array([[6] * 8]), VOCAB)
    tree = TokenRecycling(memory=memory).propose(root(3), 81)
    assert [(tree.tokens[i], tree.parents[i], tree.buckets[i]) for i in range(1, 4)] == [
        (4, 0, 0),
        (6, 1, 0),
        (5, 0, 2),
    ]
    assert len(tree) == 4


def test_a_small_vocabulary_leaves_the_row_short() -> None:
    drafter = TokenRecycling()
    drafter.observe(FakeStep(TokenTree.chain([1]), [[2, 0, 1]], vocab_size=3))
    assert drafter.memory.row(1) == [2, 0, 1]
    assert drafter.propose(root(1), 81).tokens[:2] == (1, 2)


def test_all_scored_nodes_are_recycled_and_overwrite() -> None:
    """Accepted: the root alone. The rejected nodes 5 and 6 are learned all the same."""
    drafter = TokenRecycling()
    tree = TokenTree((4, 5, 6), (-1, 0, 0))
    drafter.observe(FakeStep(tree, [list(range(20, 28)), list(range(30, 38)), list(range(40, 48))]))
    assert [drafter.memory.row(token)[0] for token in (4, 5, 6)] == [20, 30, 40]
    drafter.observe(FakeStep(TokenTree.chain([5]), [list(range(57, 49, -1))]))
    assert drafter.memory.row(5) == list(range(57, 49, -1))  # no average, no remains
    assert drafter.memory.row(6)[0] == 40


def test_the_last_write_in_breadth_first_order_wins() -> None:
    """Token 4 stands at the root, at depth 2 (index 2) and at depth 1 (index 3)."""
    drafter = TokenRecycling()
    tree = TokenTree((4, 5, 4, 4), (-1, 0, 1, 0))
    drafter.observe(FakeStep(tree, [list(range(b, b + 8)) for b in (10, 20, 30, 40)]))
    assert drafter.memory.row(4)[0] == 30


def test_a_random_matrix_changes_drafts_and_never_the_tokens_that_follow() -> None:
    """Greedy verification by hand: the model wants token + 1 after each token, whatever was drafted."""

    def decode(memory: RecyclingMatrix, learn: bool) -> tuple[list[int], int]:
        drafter, text, passes = TokenRecycling(memory=memory), [0], 0
        while len(text) < 40:
            tree = drafter.propose(Context(text, 1, seed=0, temperature=0.0), 17)
            node: int | None = 0
            while node is not None:
                text.append((tree.tokens[node] + 1) % VOCAB)
                node = next((c for c in tree.children[node] if tree.tokens[c] == text[-1]), None)
            passes += 1
            if learn:
                drafter.observe(FakeStep(tree, [[(t + r) % VOCAB for r in range(1, 9)] for t in tree.tokens]))
        return text[:40], passes

    learned = RecyclingMatrix()
    cold, cold_passes = decode(learned, learn=True)
    warm, warm_passes = decode(learned, learn=True)
    random, random_passes = decode(full_matrix(), learn=False)
    assert cold == warm == random == list(range(40))
    assert warm_passes < cold_passes <= random_passes


def test_sequences_share_one_matrix() -> None:
    memory = RecyclingMatrix()
    one, other = TokenRecycling(memory=memory), TokenRecycling(memory=memory)
    one.observe(FakeStep(TokenTree.chain([3]), [list(range(10, 18))]))
    assert len(other.propose(root(3), 81)) == 9
    memory.reset()
    assert len(other.propose(root(3), 81)) == 1


def test_saved_and_loaded(tmp_path: Path) -> None:
    memory = RecyclingMatrix()
    assert isinstance(memory, Memory)
    memory.update([3, 0], np.array([range(8), range(8, 16)]), VOCAB)
    file = tmp_path / "matrix"
    memory.save(file)
    assert [path.name for path in tmp_path.iterdir()] == ["matrix"]
    other = RecyclingMatrix()
    other.update([5], np.array([range(8)]), VOCAB)
    other.load(file)
    assert (other.row(3), other.row(0), other.row(5)) == (list(range(8)), list(range(8, 16)), [])
    assert other.vocab_size == VOCAB
    before = file.read_bytes()
    with file.open("rb") as reader:
        RecyclingMatrix().save(file)
        assert reader.read() == before  # replaced, not overwritten
    other.load(file)
    assert other.row(3) == []


def test_files_of_other_shapes_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "matrix.npz"
    memory = RecyclingMatrix(k=4, vocab_size=VOCAB)
    memory.save(file)
    with pytest.raises(UnspoolError, match="k = 8"):
        RecyclingMatrix(k=8).load(file)
    with pytest.raises(UnspoolError, match=f"vocabulary of 50 tokens but the model has {VOCAB}"):
        RecyclingMatrix(k=4, vocab_size=50).load(file)
    with file.open("wb") as handle:
        np.savez(handle, vocab_size=5, tokens=np.array([1]), ids=np.array([[1, 2, 3, 5]]))
    with pytest.raises(UnspoolError, match="outside its vocabulary"):
        memory.load(file)


def test_a_matrix_of_another_model_is_refused() -> None:
    memory = full_matrix()
    with pytest.raises(UnspoolError, match="reset it"):
        TokenRecycling(memory=memory, vocab_size=VOCAB + 1)
    with pytest.raises(UnspoolError, match="reset it"):
        TokenRecycling(memory=memory).observe(FakeStep(TokenTree.chain([3]), [[1]], vocab_size=VOCAB + 1))
    with pytest.raises(UnspoolError, match="k = 8"):
        TokenRecycling(TokenRecyclingOptions(k=4), memory)


def test_options_out_of_range_are_refused() -> None:
    for options in ({"k": 0}, {"k": 9}, {"nodes": 0}, {"nodes": 81}):
        with pytest.raises(UnspoolError, match="must lie in"):
            TokenRecyclingOptions(**options)
