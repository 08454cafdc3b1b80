"""ADED: what the table counts and learns, the search through it, and the drafts that come of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest

from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.engine import noise
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Context, Memory
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.errors import UnspoolError
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.drafters._datastore import Datastore
from unspool.methods.drafters.aded import Aded, AdedOptions
from unspool.methods.drafters.aded.search import Search
from unspool.methods.drafters.aded.table import CAP, SUCCESSORS, TrigramTable
from unspool.methods.drafters.plain import Plain

VOCAB = 60
FROZEN = AdedOptions(increment=0.0)


def context(tokens: Sequence[int], seed: int = 0) -> Context:
    return Context(list(tokens), 1, seed, temperature=0.0)


def corpus(seed: int = 0, size: int = 4000) -> list[int]:
    """Text of a skewed vocabulary, in which most pairs are seen several times."""
    rng = np.random.default_rng(seed)
    return np.minimum(rng.geometric(0.25, size), VOCAB - 1).tolist()


def drafter(table: TrigramTable, options: AdedOptions = FROZEN) -> Aded:
    return Aded(options, table, VOCAB)


# The table.


def test_counts_are_normalised_over_all_successors_and_cut_to_twelve() -> None:
    documents = [[1, 2, token] for token in range(20) for _ in range(20 - token)]
    table = TrigramTable.from_corpus([*documents, [3, 4], [5]])
    total = sum(range(1, 21))
    found = table.successors(1, 2)
    assert [token for token, _ in found] == list(range(SUCCESSORS))
    np.testing.assert_allclose([value for _, value in found], [(20 - t) / total for t in range(SUCCESSORS)], rtol=1e-6)
    assert table.successors(2, 1) == table.successors(3, 4) == []
    assert len(table) == 1


def test_no_trigram_reaches_into_the_next_document() -> None:
    table = TrigramTable.from_corpus(iter([np.array([1, 2]), np.array([3, 4, 5])]))
    assert table.successors(1, 2) == table.successors(2, 3) == []
    assert table.successors(3, 4) == [(5, 1.0)]


def test_blocks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [corpus(seed, 100) for seed in range(30)]
    whole = TrigramTable.from_corpus(documents)
    monkeypatch.setattr("unspool.methods.drafters.aded.table._BLOCK", 250)
    parts = TrigramTable.from_corpus(documents)
    expected = Counter((a, b) for text in documents for a, b, _ in zip(text, text[1:], text[2:], strict=False))
    assert len(whole) == len(parts) == len(expected)
    for pair in expected:
        assert whole.successors(*pair) == parts.successors(*pair)


def test_equal_values_are_in_order_of_ids() -> None:
    table = TrigramTable.from_corpus([[1, 2, token] for token in (9, 4, 30, 7)])
    assert [token for token, _ in table.successors(1, 2)] == [4, 7, 9, 30]
    table.reinforce([1, 2, 5], 0.25)
    assert [token for token, _ in table.successors(1, 2)] == [4, 5, 7, 9, 30]


def test_text_raises_its_trigrams_up_to_the_cap() -> None:
    table = TrigramTable.from_corpus([[1, 2, 3], [1, 2, 4], [1, 2, 4], [1, 2, 4]])
    table.reinforce([1, 2, 3, 5], 0.04)
    assert table.successors(1, 2) == [(4, 0.75), (3, pytest.approx(0.29))]  # raised, not normalised again
    assert table.successors(2, 3) == [(5, 0.04)]
    for _ in range(100):
        table.reinforce([2, 3, 5], 0.04)
    assert table.successors(2, 3) == [(5, CAP)]
    table.reset()
    assert (len(table), table.successors(1, 2), table.vocab_size) == (0, [], None)


def test_learned_successors_are_not_cut_to_twelve() -> None:
    table = TrigramTable()
    for token in range(20):
        table.reinforce([1, 2, token], 0.04)
    assert len(table.successors(1, 2)) == 20


def test_the_pair_raised_longest_ago_goes_back_to_the_corpus() -> None:
    table = TrigramTable.from_corpus([[1, 1, 5], [2, 2, 6]], capacity=2)
    for token in (1, 2, 1, 3):
        table.reinforce([token, token, 9], 0.5)
    assert table.successors(1, 1) == [(5, 1.0), (9, 1.0)]
    assert table.successors(2, 2) == [(6, 1.0)]
    assert table.successors(3, 3) == [(9, 0.5)]


def test_saved_and_loaded(tmp_path: Path) -> None:
    table = TrigramTable.from_corpus([corpus()])
    assert isinstance(table, Memory)
    table.fit(VOCAB)
    table.reinforce([1, 2, 3, 50, 51, 52], 0.3)
    file = tmp_path / "table"
    table.save(file)
    assert [path.name for path in tmp_path.iterdir()] == ["table"]
    other = TrigramTable()
    other.reinforce([7, 8, 9], 1.0)
    other.load(file)
    assert (len(other), other.vocab_size) == (len(table), VOCAB)
    for first in range(VOCAB):
        for second in range(VOCAB):
            assert other.successors(first, second) == table.successors(first, second)
    small = TrigramTable(capacity=1)
    small.load(file)
    assert small.successors(50, 51) == [(52, 0.3)]
    assert small.successors(2, 3) == TrigramTable.from_corpus([corpus()]).successors(2, 3)
    TrigramTable().save(file)
    other.load(file)
    assert len(other) == 0


def test_tables_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    table = TrigramTable.from_corpus([[1, 2, VOCAB]])
    with pytest.raises(UnspoolError, match="own tokenizer"):
        drafter(table)
    file = tmp_path / "table.npz"
    table.save(file)
    used = TrigramTable()
    drafter(used)
    with pytest.raises(UnspoolError, match="outside its vocabulary"):
        used.load(file)
    with pytest.raises(UnspoolError, match="own tokenizer"):
        used.count([[1, 2, VOCAB]])
    table.fit(VOCAB + 1)
    table.save(file)
    with pytest.raises(UnspoolError, match=f"vocabulary of {VOCAB + 1} tokens but the model has {VOCAB}"):
        used.load(file)
    with pytest.raises(UnspoolError, match="reset it"):
        drafter(table)
    with pytest.raises(UnspoolError, match="own tokenizer"):
        TrigramTable.from_corpus([[1, 2, -1]])


# The search.


def reference(table: TrigramTable, pair: tuple[int, int], iterations: int) -> dict[tuple[int, ...], tuple[int, float]]:
    """Visits and score by path, written down from the paper's formula; roll-outs take the last successor."""
    visits: Counter[tuple[int, ...]] = Counter()
    scores: dict[tuple[int, ...], float] = {(): 0.0}
    expanded: set[tuple[int, ...]] = set()

    def after(path: tuple[int, ...]) -> dict[int, float]:
        return dict(table.successors(*(*pair, *path)[-2:]))

    def puct(path: tuple[int, ...]) -> float:
        n, total = visits[path], visits[path[:-1]]
        if not n:
            return np.inf
        p = after(path[:-1])[path[-1]]
        return scores[path] / n + (32 + np.log((total + 8 + 1) / 8)) * p * np.sqrt(total) / (1 + n)

    for _ in range(iterations):
        path: tuple[int, ...] = ()
        while path in expanded and len(path) < 3:
            path = max(((*path, token) for token in after(path)), key=puct)
        if len(path) < 3 and after(path):
            expanded.add(path)
            path = (*path, next(iter(after(path))))
        rolled = path
        while len(rolled) < 3 and after(rolled):
            rolled = (*rolled, list(after(rolled))[-1])
        score = 1 + sum(after(rolled[:i])[rolled[i]] for i in range(len(rolled)))
        for end in range(len(path) + 1):
            visits[path[:end]] += 1
            scores[path[:end]] = scores.get(path[:end], 0.0) + score
    return {path: (count, scores[path]) for path, count in visits.items()}


def searched(search: Search) -> dict[tuple[int, ...], tuple[int, float]]:
    found = {(): (search.root.visits, search.root.score)}
    for visits, path, parent, at in search._prefixes():
        found[path] = (visits, parent.children[at].score)
    return found


@pytest.mark.parametrize("pair", [(1, 1), (2, 5), (3, 1), (9, 9), (59, 59)])
def test_the_search_is_the_papers(pair: tuple[int, int]) -> None:
    table = TrigramTable.from_corpus([corpus(size=600)])
    table.reinforce([1, 1, 30, 31], 3.0)
    search = Search(table, pair, repeat(1.0))
    search.run(150)
    expected = reference(table, pair, 150)
    found = searched(search)
    assert {path: visits for path, (visits, _) in found.items()} == {p: v for p, (v, _) in expected.items()}
    for path, (_, score) in expected.items():
        assert found[path][1] == pytest.approx(score)


def test_roll_outs_are_drawn_in_proportion_to_the_values() -> None:
    """Scores of one iteration: root, one child, then two steps of chance whose values tell which were taken."""
    table = TrigramTable()
    for tokens, value in (([1, 2, 3], 0.5), ([2, 3, 4], 1.5), ([2, 3, 5], 0.5), ([3, 4, 6], 0.25), ([3, 5, 6], 0.125)):
        table.reinforce(tokens, value)
    seen: Counter[float] = Counter()
    for seed in range(4000):
        uniform = iter(np.random.default_rng(seed).random(3).tolist())
        search = Search(table, (1, 2), uniform)
        search.run(1)
        seen[search.root.score] += 1
    assert set(seen) == {1 + 0.5 + 1.5 + 0.25, 1 + 0.5 + 0.5 + 0.125}
    assert seen[3.25] / 4000 == pytest.approx(0.75, abs=0.03)


# Drafts.


def most_visited(table: TrigramTable, pair: tuple[int, int], length: int) -> dict[tuple[int, ...], int]:
    """The visits of all prefixes, most visited first, in a text of this length that ends with the pair."""
    uniform = noise.draft_generator(0, length).random(150 * 3).tolist()
    search = Search(table, pair, iter(uniform))
    search.run(150)
    return {path: visits for visits, path, _, _ in search._prefixes()}


def test_the_most_visited_prefixes_and_one_token_more() -> None:
    table = TrigramTable.from_corpus([corpus()])
    one = drafter(table)
    tree = one.propose(context([4, 1, 1]), 65)
    prefixes = most_visited(table, (1, 1), 3)
    assert len(prefixes) > 40
    kept = list(prefixes)[:23]  # the root is the 24th
    longer = [(*path, table.successors(*(1, 1, *path)[-2:])[0][0]) for path in kept]
    assert {tuple(tree.path_tokens(node)) for node in range(1, len(tree))} == {*kept, *longer}
    assert 24 < len(tree) <= 47


def test_a_draft_is_at_most_four_tokens_deep() -> None:
    table = TrigramTable.from_corpus([list(range(20))])
    assert drafter(table).propose(context([1, 2]), 65).tokens == (2, 3, 4, 5, 6)


def test_siblings_differ_and_budgets_cut_the_least_visited() -> None:
    table = TrigramTable.from_corpus([corpus()])
    one = drafter(table)
    whole = one.propose(context([1, 2]), 65)
    for parent in range(len(whole)):
        tokens = [whole.tokens[child] for child in whole.children[parent]]
        assert len(set(tokens)) == len(tokens)
    for budget in range(1, len(whole) + 1):
        cut = one.propose(context([1, 2]), budget)
        assert (cut.tokens, cut.parents) == (whole.tokens[:budget], whole.parents[:budget])
    visits = most_visited(table, (1, 2), 2)
    reached = [visits[path] for node in range(1, len(whole)) if (path := tuple(whole.path_tokens(node))) in visits]
    assert reached == sorted(reached, reverse=True)
    assert len(drafter(table, AdedOptions(nodes=7, increment=0)).propose(context([1, 2]), 65)) == 8


def test_a_token_beyond_the_search_counts_by_its_chance() -> None:
    """Both halves of what follows 5 share its visits: 6 comes after 8, which was visited less often than 5."""
    table = TrigramTable.from_corpus([[1, 2, 3]] * 5 + [[1, 2, 8]] * 5 + [[2, 3, 4, 5, 6], [4, 5, 7]])
    tree = drafter(table).propose(context([1, 2]), 65)
    assert tree.tokens == (2, 3, 4, 5, 8, 6)
    visits = most_visited(table, (1, 2), 2)
    assert visits[3, 4, 5] / 2 < visits[8,] < visits[3, 4, 5]


def test_buckets_tell_share_and_value() -> None:
    table = TrigramTable()
    table.reinforce([1, 2, 3, 4], 2.0)
    tree = drafter(table).propose(context([1, 2]), 65)
    assert (tree.tokens, tree.parents) == ((2, 3, 4), (-1, 0, 1))
    assert tree.buckets[1:] == (3 * 4 + 3, 3 * 4 + 3)  # all of the visits, value above 1
    table.reinforce([1, 2, 7], 0.04)
    tree = drafter(table).propose(context([1, 2]), 65)
    assert (tree.tokens[-1], tree.buckets[-1]) == (7, 0)


def test_nothing_known_nothing_drafted() -> None:
    table = TrigramTable()
    one = drafter(table, AdedOptions())
    assert one.propose(context([5]), 65).tokens == (5,)
    assert one.propose(context([4, 5]), 65).tokens == (5,)
    assert one.propose(context([3, 4, 5]), 65).tokens == (5,)
    assert table.successors(3, 4) == [(5, 0.04)]


def test_the_last_sixteen_tokens_are_learned_at_every_draft() -> None:
    table = TrigramTable()
    one = drafter(table, AdedOptions())
    text = list(range(20))
    one.propose(context(text), 65)
    assert table.successors(3, 4) == []
    assert table.successors(4, 5) == [(6, 0.04)]
    assert len(table) == 14
    one.propose(context([*text, 20]), 65)
    assert table.successors(4, 5) == [(6, 0.04)]
    assert table.successors(5, 6) == [(7, 0.08)]
    frozen = TrigramTable()
    drafter(frozen).propose(context(text), 65)
    assert len(frozen) == 0


def test_the_same_seed_drafts_the_same() -> None:
    tables = [TrigramTable.from_corpus([corpus()]) for _ in range(2)]
    for position in range(2, 30):
        trees = [drafter(table, AdedOptions()).propose(context(corpus(1)[:position], 7), 65) for table in tables]
        assert trees[0] == trees[1]


def test_a_corpus_and_what_is_learned_save_passes_and_change_no_text() -> None:
    toy = ToyModel.random(vocab_size=6, order=2, seed=11)

    def run(table: TrigramTable, increment: float) -> tuple[list[int], int]:
        options = GenerationOptions(max_new_tokens=60)
        one = Aded(AdedOptions(increment=increment), table, toy.vocab_size)
        steps = [e for e in decode(toy, [Request([0, 1, 2], one, ExactMatch(), options)]) if isinstance(e, StepEvent)]
        return [token for step in steps for token in step.emitted], len(steps)

    text, passes = run(TrigramTable(), 0.0)
    assert passes == 60
    learned, fewer = run(TrigramTable(), 0.04)
    counted, fewest = run(TrigramTable.from_corpus([[0, 1, 2, *text]]), 0.0)
    wrong, _ = run(TrigramTable.from_corpus([np.random.default_rng(0).integers(0, 6, 500)]), 0.04)
    assert learned == counted == wrong == text
    assert fewest <= 16 and fewer < 40  # four tokens and the bonus token a pass at best


def test_options_out_of_range_are_refused() -> None:
    for options in ({"nodes": 0}, {"nodes": 65}, {"iterations": 0}, {"increment": -0.1}, {"increment": 3.5}):
        with pytest.raises(UnspoolError, match="must"):
            AdedOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(UnspoolError, match="capacity"):
        TrigramTable(capacity=0)


# The corpus that options name.


def around_toy(vocab_size: int = 6) -> methods.Resources:
    return methods.Resources(ToyModel.random(vocab_size=vocab_size, order=2, seed=11))


def passes(around: methods.Resources, options: dict[str, object]) -> tuple[list[int], int, str]:
    """Text, passes, and what the trace calls the drafts."""
    made = methods.build("aded", DRAFTER, around, options)
    request = Request([0, 1, 2], made, ExactMatch(), GenerationOptions(max_new_tokens=40))
    steps = [event for event in decode(around.model, [request]) if isinstance(event, StepEvent)]
    names = {source for step in steps for source in step.sources} - {"root"}
    return [token for step in steps for token in step.emitted], len(steps), names.pop()


def test_a_corpus_is_read_from_a_datastore(tmp_path: Path) -> None:
    toy = around_toy().model
    plain = decode(toy, [Request([0, 1, 2], Plain(), ExactMatch(), GenerationOptions(max_new_tokens=40))])
    text = [token for event in plain if isinstance(event, StepEvent) for token in event.emitted]
    Datastore.from_sequences([[0, 1, 2, *text], text[::-1]]).save(tmp_path / "corpus")
    options = {"corpus": str(tmp_path / "corpus")}
    around = around_toy()
    without, with_corpus = passes(around, {}), passes(around, options)
    assert without[0] == with_corpus[0] == text
    assert (without[2], with_corpus[2]) == ("aded (no corpus)", "aded")
    assert with_corpus[1] < without[1]
    assert set(around.memories) == {"aded", f"aded:corpus={tmp_path / 'corpus'}"}, "one leaves the other alone"
    for memory in around.memories.values():
        memory.reset()
    assert passes(around, options) == with_corpus, "all were reset, and the option still names it"


def test_a_corpus_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    Datastore.from_sequences([[0, 1, 7]], vocabulary="one").save(tmp_path / "corpus")
    options = {"corpus": str(tmp_path / "corpus")}
    with pytest.raises(UnspoolError, match="was built with the tokenizer"):
        methods.build("aded", DRAFTER, around_toy(), options)
    other = replace(around_toy(8), vocabulary=lambda: "other")
    with pytest.raises(UnspoolError, match="was built with the tokenizer"):
        methods.build("aded", DRAFTER, other, options)
    with pytest.raises(UnspoolError, match="not a datastore"):
        methods.build("aded", DRAFTER, around_toy(), {"corpus": str(tmp_path)})


def test_a_table_of_the_users_own_says_whether_it_has_a_corpus() -> None:
    around = around_toy()
    around.memories["aded"] = TrigramTable.from_corpus([[0, 1, 2, 3]])
    assert passes(around, {})[2] == "aded"
