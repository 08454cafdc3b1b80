"""RASD: what is retrieved, what is pruned, and that the union of two drafts accepts no less than either."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Context, Decision, Drafter, Step
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.acceptance.lossless import Lossless
from unspool.methods.drafters import rasd as module
from unspool.methods.drafters._datastore import Datastore
from unspool.methods.drafters._datastore.suffix_array import SEPARATOR
from unspool.methods.drafters.draft_model import DraftModel, DraftModelOptions
from unspool.methods.drafters.plain import Plain
from unspool.methods.drafters.rasd import RASD, Branch, RASDOptions
from unspool.methods.drafters.rasd.retrieval import Continuations, most_frequent

TARGET = ToyModel.random(vocab_size=6, order=2, seed=11)


class Fixed:
    """Drafts one path whatever the text, and remembers the budget it was given."""

    def __init__(self, *path: int) -> None:
        self._path = path
        self.budget = 0
        self.seen = 0

    def start(self, context: Context) -> None: ...

    def propose(self, context: Context, budget: int) -> TokenTree:
        self.budget = budget
        return TokenTree.chain((context.tokens[-1], *self._path[: budget - 1]), "fixed")

    def observe(self, step: Step) -> None:
        self.seen += 1


class Ranking(Fixed):
    """As above, with a ranking of first tokens."""

    def __init__(self, ranking: Sequence[int] | None, *path: int) -> None:
        super().__init__(*path)
        self._ranking = ranking

    def first_ranking(self, k: int) -> Sequence[int] | None:
        return None if self._ranking is None else self._ranking[:k]


def context(*tokens: int) -> Context:
    return Context(list(tokens), 1, seed=0, temperature=0.0)


def paths_of(tree: TokenTree, source: str | None = None) -> set[tuple[int, ...]]:
    nodes = range(1, len(tree))
    return {tuple(tree.path_tokens(i)) for i in nodes if source in (None, tree.source_names[tree.sources[i]])}


def propose(drafter: Drafter, *tokens: int, budget: int = 100) -> TokenTree:
    drafter.start(context(*tokens))
    return drafter.propose(context(*tokens), budget)


@pytest.mark.parametrize("seed", range(8))
def test_the_heaviest_prefixes_are_kept(seed: int) -> None:
    """Against counting all prefixes by hand: no prefix that is left out weighs more than one that is kept."""
    rng = np.random.default_rng(seed)
    sources, weights = [], Counter[tuple[int, ...]]()
    for name, matched, size in (("text", 3, 1), ("datastore", 5, 40)):
        rows = rng.integers(3, size=(size, 4)).astype(np.int32)
        for row in rows[: size // 2]:
            row[rng.integers(0, 4) :] = SEPARATOR
        sources.append(Continuations.of(name, matched, rows))
        for row in rows.tolist():
            kept = [token for token in row if token != SEPARATOR]
            for length in range(1, len(kept) + 1):
                weights[tuple(kept[:length])] += matched / size  # type: ignore[assignment]
    for limit in (1, 4, 9, 1000):
        tree = most_frequent(7, sources, limit)
        chosen = [tuple(tree.path_tokens(node)) for node in range(1, len(tree))]
        assert len(set(chosen)) == len(chosen) == min(limit, len(weights)) and set(chosen) <= set(weights)
        left = max((weights[path] for path in set(weights) - set(chosen)), default=0.0)
        found = [weights[path] for path in chosen]
        assert all(b <= a + 1e-9 for a, b in itertools.pairwise(found)) and found[-1] >= left - 1e-9
        for node, path in enumerate(chosen, 1):
            own = path == tuple(sources[0].rows[0, : len(path)].tolist())
            assert tree.source_names[tree.sources[node]] == ("text" if own else "datastore")


def test_of_equal_weight_the_shallow_come_first() -> None:
    source = Continuations.of("datastore", 2, np.array([[3, 1, 1], [4, 2, 2]], np.int32))
    tree = most_frequent(0, [source], 4)
    assert paths_of(tree) == {(3,), (4,), (3, 1), (4, 2)}
    assert set(tree.buckets[1:]) == {2}
    longer = Continuations.of("text", 40, np.array([[5, 6, 7]], np.int32))
    tree = most_frequent(0, [source, longer], 3)
    assert paths_of(tree) == {(5,), (5, 6), (5, 6, 7)}, "the source with the longer match comes first"
    assert set(tree.buckets[1:]) == {15}


def test_what_was_pruned_still_counts_as_an_occurrence() -> None:
    """One of four continuations of a longer match weighs less than the only one of a match half as long."""
    text = Continuations.of("text", 2, np.array([[6, 1]], np.int32))
    stored = Continuations.of("datastore", 4, np.array([[3, 1], [3, 1], [5, 1], [3, 2]], np.int32))
    assert paths_of(most_frequent(0, [text, stored], 1)) == {(3,)}
    assert paths_of(most_frequent(0, [text, stored.only([5])], 1)) == {(6,)}


def test_a_continuation_of_both_sources_is_one_path_with_the_longer_match() -> None:
    sources = [Continuations.of(name, n, np.array([[1, 2]], np.int32)) for name, n in (("text", 2), ("datastore", 4))]
    tree = most_frequent(0, sources, 5)
    assert (tree.tokens, tree.parents, tree.buckets) == ((0, 1, 2), (-1, 0, 1), (0, 4, 4))
    assert {tree.source_names[source] for source in tree.sources[1:]} == {"text"}


def test_the_text_itself_is_looked_up() -> None:
    """After the most recent occurrence of at least two tokens; what reaches the end goes on in itself."""
    drafter = RASD(RASDOptions(continuation=4), Plain(), Datastore())
    assert paths_of(propose(drafter, 1, 2, 3, 4, 1, 2, 5, 6, 7, 1, 2)) == {(5,), (5, 6), (5, 6, 7), (5, 6, 7, 1)}
    assert len(propose(drafter, 1, 2, 3, 4, 2)) == 1
    assert propose(drafter, 8, 9, 8, 9).tokens == (9, 8, 9, 8, 9)
    growing = context(1, 2, 3, 4)
    drafter.start(growing)
    assert len(drafter.propose(growing, 10)) == 1
    growing.tokens.extend([2, 3])  # type: ignore[attr-defined]
    assert drafter.propose(growing, 10).tokens[1] == 4, "what was committed is looked up too"


def test_a_new_request_forgets_the_text_of_the_last_one() -> None:
    drafter = RASD(RASDOptions(), Plain(), Datastore())
    assert len(propose(drafter, 1, 2, 3, 1, 2)) > 1
    assert len(propose(drafter, 5, 1, 2)) == 1


def test_text_and_datastore_are_one_tree_with_the_draft() -> None:
    store = Datastore.from_sequences([[8, 1, 2, 3, 9, 9], [8, 1, 2, 4]])
    drafter = RASD(RASDOptions(continuation=2), Fixed(3, 7), store)
    tree = propose(drafter, 1, 2, 5, 8, 1, 2)
    assert paths_of(tree, "fixed") == {(3,), (3, 7)}
    assert paths_of(tree, "text") == {(5,), (5, 8)}
    assert paths_of(tree, "datastore") == {(3, 9), (4,)}
    assert tree.tokens[:3] == (2, 3, 7) and len(paths_of(tree)) == len(tree) - 1


STORE = Datastore.from_sequences([[1, 2, 3, 4], [1, 2, 5, 6], [1, 2, 7, 8]])


@pytest.mark.parametrize(
    ("drafter", "options", "firsts"),
    [
        (Ranking([9, 5, 3]), {}, {3, 5}),
        (Ranking([9, 5, 3]), {"prune_top_k": 2}, {5}),
        (Ranking([9, 5, 3]), {"prune_top_k": 1}, set()),
        (Ranking([9, 5, 3]), {"prune_top_k": 0}, {3, 5, 7}),
        (Ranking([9, 5, 3]), {"prune_top_k": 2, "trusted_match": 2}, {3, 5, 7}),
        (Ranking([9, 5, 3]), {"prune_top_k": 2, "trusted_match": 3}, {5}),
        (Ranking(None), {}, {3, 5, 7}),
        (Fixed(9), {}, {3, 5, 7, 9}),
    ],
)
def test_first_tokens_that_the_drafter_does_not_rank_high_are_pruned(
    drafter: Fixed, options: dict[str, int], firsts: set[int]
) -> None:
    """Also the paths behind them; a drafter without a ranking prunes nothing, one that drafts 9 does not stand in."""
    tree = propose(RASD(RASDOptions(**options), drafter, STORE), 0, 1, 2)
    assert {tree.tokens[node] for node in tree.children[0]} == firsts
    assert len(tree) == 1 + len(firsts) + len(firsts - {9})


@pytest.mark.parametrize(
    "name", [name for name, row in methods.methods().items() if row.needs.assistant and name != "pearl"]
)
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_draft_models_tree_prunes_by_its_first_distribution(name: str, temperature: float) -> None:
    """Whatever shape the draft has, and by what the draft model believes, not by what was drawn."""
    around = methods.Resources(TARGET, assistant=TARGET.related(0.7, seed=2))
    assert around.assistant is not None
    text = [0, 1, 2, 0, 1]
    store = Datastore.from_sequences([[0, 1, token, token] for token in range(6)])
    best = np.argsort(-around.assistant.probabilities(text), kind="stable").tolist()  # type: ignore[attr-defined]
    for k in (1, 2, 5):
        drafter = RASD(RASDOptions(prune_top_k=k), methods.build(name, DRAFTER, around), store)
        seen = Context(text, 5, seed=3, temperature=temperature, uses_draft_probs=True)
        drafter.start(seen)
        tree = drafter.propose(seen, 60)
        firsts = [(tree.tokens[node], tree.source_names[tree.sources[node]]) for node in tree.children[0]]
        assert {token for token, source in firsts if source in ("text", "datastore")} <= set(best[:k])
        assert set(best[:k]) <= {token for token, _ in firsts}


def test_pruned_continuations_give_their_nodes_to_others() -> None:
    """Pruning comes before the limit: the rarest branch stays if the others are dropped."""
    store = Datastore.from_sequences([[1, 2, 3, 4]] * 5 + [[1, 2, 5, 6]])
    options = RASDOptions(retrieved_nodes=2)
    assert paths_of(propose(RASD(options, Ranking([5]), store), 0, 1, 2)) == {(5,), (5, 6)}
    assert paths_of(propose(RASD(options, Ranking([3, 5]), store), 0, 1, 2)) == {(3,), (3, 4)}


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 8, 50])
def test_budget(budget: int) -> None:
    """The drafter gets what retrieval may not take, and all of it where nothing is found; its nodes stay."""
    inner = Fixed(*[9] * 40)
    drafter = RASD(RASDOptions(nodes=20, retrieved_nodes=4), inner, STORE)
    tree = propose(drafter, 0, 1, 2, budget=budget)
    assert inner.budget == max(1, min(budget, 21) - 4)
    assert len(tree) == min(budget, 21)
    assert tree.tokens[: inner.budget] == (2, *[9] * (inner.budget - 1))
    assert len(propose(drafter, 0, 2, 1, budget=budget)) == inner.budget == min(budget, 21)


def test_how_often_a_pruned_branch_was_right_is_counted() -> None:
    inner = Ranking([3])
    drafter = RASD(RASDOptions(), inner, STORE)
    tree = propose(drafter, 0, 1, 2)

    class Observed:
        emitted = (7,)
        decision = Decision((0,), 7)

    Observed.tree = tree  # type: ignore[attr-defined]
    drafter.observe(Observed())  # type: ignore[arg-type]
    assert +drafter.branches == {
        Branch("datastore", 2, pruned=False, right=False): 1,
        Branch("datastore", 2, pruned=True, right=True): 1,
        Branch("datastore", 2, pruned=True, right=False): 1,
    }
    assert inner.seen == 1


def run(drafter: Drafter, options: GenerationOptions, lossless: bool = False) -> list[StepEvent]:
    rule = Lossless() if lossless else ExactMatch()
    events = decode(TARGET, [Request([0, 1, 2, 0, 1], drafter, rule, options)])
    return [event for event in events if isinstance(event, StepEvent)]


def text_of(steps: Sequence[StepEvent]) -> list[int]:
    return [token for step in steps for token in step.emitted]


def poison(seed: int) -> Datastore:
    rng = np.random.default_rng(seed)
    return Datastore.from_sequences([rng.integers(6, size=50).tolist() for _ in range(10)])


def answers(options: GenerationOptions) -> Datastore:
    return Datastore.from_sequences([[0, 1, 2, 0, 1, *text_of(run(Plain(), options))]])


@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "seed": 4}], ids=["greedy", "same noise"])
def test_whatever_the_datastore_holds_the_text_is_that_of_plain_decoding(options: dict[str, float]) -> None:
    settings = GenerationOptions(max_new_tokens=80, **options)  # type: ignore[arg-type]
    expected = text_of(run(Plain(), settings))
    for store in (Datastore(), answers(settings), *map(poison, range(3))):
        for inner in (Plain(), DraftModel(DraftModelOptions(2), TARGET.related(1.0, seed=2), TARGET.vocab_size)):
            assert text_of(run(RASD(RASDOptions(), inner, store), settings)) == expected
    retrieved = run(RASD(RASDOptions(), Plain(), answers(settings)), settings)
    assert len(retrieved) < 80 / 5, "a datastore that holds the text is copied from"


def accepted(tree: TokenTree, emitted: Sequence[int]) -> int:
    node, count = 0, 0
    for token in emitted:
        node = next((child for child in tree.children[node] if tree.tokens[child] == token), -1)
        if node < 0:
            break
        count += 1
    return count


def test_the_union_accepts_no_less_than_draft_or_retrieval_in_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is a trie that holds all of the draft and, where nothing is cut, all of what was retrieved."""
    parts: list[tuple[TokenTree, TokenTree, TokenTree]] = []
    fuse = module.fuse

    def recorded(first: TokenTree, second: TokenTree, budget: int) -> TokenTree:
        parts.append((first, second, fuse(first, second, budget)))
        return parts[-1][-1]

    monkeypatch.setattr(module, "fuse", recorded)
    options = GenerationOptions(max_new_tokens=150, temperature=1.0, seed=1)  # greedy text of the toy is periodic
    inner = DraftModel(DraftModelOptions(3), TARGET.related(0.9, seed=5), TARGET.vocab_size)
    steps = run(RASD(RASDOptions(), inner, poison(3)), options)
    gained = Counter[str]()
    for step, (draft, retrieved, fused) in zip(steps[:-1], parts, strict=False):
        assert paths_of(fused) == paths_of(draft) | paths_of(retrieved)
        assert len(paths_of(fused)) == len(fused) - 1
        one, other = accepted(draft, step.emitted), accepted(retrieved, step.emitted)
        assert len(step.accepted) - 1 >= max(one, other)
        gained["draft" if one > other else "retrieval" if other > one else "neither"] += 1
    assert min(gained["draft"], gained["retrieval"]) > 5, "each should be the better one at times"


def test_drawn_drafts_are_left_as_they_were_drawn() -> None:
    """Under the rule that tests draws: the same nodes, draws and distributions as the inner drafter alone."""
    around = Context([0, 1, 2, 0, 1], 5, seed=3, temperature=0.9, uses_draft_probs=True)
    alone, fused = (
        drafter.propose(around, 40)
        for drafter in (
            DraftModel(DraftModelOptions(3), TARGET, TARGET.vocab_size),
            RASD(RASDOptions(), DraftModel(DraftModelOptions(3), TARGET, TARGET.vocab_size), poison(2)),
        )
    )
    size = len(alone)
    assert len(fused) > size == 4
    assert (fused.tokens[:size], fused.parents[:size]) == (alone.tokens, alone.parents)
    assert fused.drafts == alone.drafts + (-1,) * (len(fused) - size) and set(alone.drafts[1:]) == {0, 1, 2}
    for one, other in zip(fused.distributions, alone.distributions, strict=True):
        np.testing.assert_array_equal(one.q, other.q)


@pytest.mark.parametrize(
    "options",
    [
        {"nodes": 0},
        {"retrieved_nodes": 0},
        {"continuation": 0},
        {"prune_top_k": -1},
        {"trusted_match": 1},
        {"drafter": "rasd"},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UnspoolError, match=next(iter(options))):
        RASDOptions(**options)  # type: ignore[arg-type]


def test_a_datastore_that_the_options_name_is_opened_again_after_a_reset(tmp_path: Path) -> None:
    Datastore.from_sequences([[0, 1, 2, 3, 0, 1, 2, 3]]).save(tmp_path / "store")
    around = methods.Resources(ToyModel.random(vocab_size=6, seed=1))
    options = {"datastore": str(tmp_path / "store")}
    methods.build("rasd", DRAFTER, around, options)
    (store,) = (memory for memory in around.memories.values() if isinstance(memory, Datastore))
    store.reset()
    assert len(store) == 0
    methods.build("rasd", DRAFTER, around, options)
    assert len(store) == 8
