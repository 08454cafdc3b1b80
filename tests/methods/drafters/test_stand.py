"""STAND: the mean it keeps after n-grams, the template and how it is learned, and what siblings are drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.harness import chi_squared
from unspool.backends.toy import ToyModel
from unspool.conformance.enumerated import every_tree
from unspool.conformance.enumeration import joint, total_variation
from unspool.engine import noise
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Context, Memory
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.engine.tree import POINT_MASS, TokenTree
from unspool.errors import UnspoolError
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.acceptance.lossless import Lossless
from unspool.methods.drafters.stand import Stand, StandOptions
from unspool.methods.drafters.stand.memory import KEPT, ORDERS, NGramMemory
from unspool.methods.drafters.stand.template import TEMPLATE, broad_template, learn_template
from unspool.methods.shaping._built_in import build as build_shapers

VOCAB = 50


def filled(vocab_size: int = VOCAB, seed: int = 0) -> NGramMemory:
    """After every bigram, KEPT tokens of random probability that sum to 0.9."""
    memory = NGramMemory()
    memory.fit(vocab_size)
    rng = np.random.default_rng(seed)
    for first in range(vocab_size):
        for second in range(vocab_size):
            ids = rng.choice(vocab_size, min(KEPT, vocab_size), replace=False).tolist()
            memory.update((first, second), dict(zip(ids, rng.dirichlet(np.ones(len(ids))) * 0.9, strict=True)))
    return memory


def context(tokens: Sequence[int], temperature: float = 0.0, uses_draft_probs: bool = False, seed: int = 0) -> Context:
    return Context(list(tokens), 1, seed, temperature, uses_draft_probs)


def positions(tree: TokenTree) -> list[tuple[int, ...]]:
    """Where each node stands among its siblings and its ancestors among theirs."""
    places: list[tuple[int, ...]] = [()]
    for node in range(1, len(tree)):
        parent = tree.parents[node]
        places.append((*places[parent], tree.children[parent].index(node)))
    return places


# The memory.


def test_the_mean_of_the_papers_example() -> None:
    """Tokens B, M, T, S are 1, 2, 3, 4."""
    memory = NGramMemory()
    memory.update((7, 8), {1: 0.7, 2: 0.2, 3: 0.05})
    memory.update((7, 8), {1: 0.3, 2: 0.6, 4: 0.05})
    entry = memory.lookup((7, 8))
    assert entry is not None and entry.ids == [1, 2, 3, 4]
    np.testing.assert_allclose(entry.probabilities, [0.5, 0.4, 0.025, 0.025], rtol=1e-6)
    memory.update((7, 8), {1: 0.8})
    entry = memory.lookup((7, 8))
    assert entry is not None
    np.testing.assert_allclose(entry.probabilities, [0.6, 0.8 / 3, 0.05 / 3, 0.05 / 3], rtol=1e-6)


def test_ten_tokens_are_kept() -> None:
    memory = NGramMemory()
    memory.update((7, 8), {token: 0.09 - token / 1000 for token in range(10)})
    memory.update((7, 8), {20: 0.5})
    entry = memory.lookup((7, 8))
    assert entry is not None
    assert entry.ids == [20, *range(9)]


def test_the_longest_ngram_is_found_first() -> None:
    memory = NGramMemory()
    memory.update((1, 2, 3, 4, 5), {9: 1.0})
    assert len(memory) == 3
    for text, order in (((0, 2, 3, 4, 5), 4), ((0, 0, 3, 4, 5), 3), ((0, 0, 0, 4, 5), 2), ((4, 5), 2)):
        entry = memory.lookup(text)
        assert entry is not None and entry.order == order
    assert memory.lookup((0, 0, 0, 0, 5)) is None
    assert memory.lookup((5,)) is None


def test_the_ngram_updated_longest_ago_makes_room() -> None:
    memory = NGramMemory(orders=(2,), capacity=2)
    for pair in ((1, 1), (2, 2), (1, 1), (3, 3)):
        memory.update(pair, {pair[0]: 0.5})
    assert [memory.lookup((token, token)) is not None for token in (1, 2, 3)] == [True, False, True]
    entry = memory.lookup((3, 3))
    assert entry is not None and entry.ids == [3]
    memory.update((3, 3), {3: 0.7})
    entry = memory.lookup((3, 3))
    assert entry is not None and entry.probabilities == pytest.approx([0.6])  # the count of the evicted one is gone


def test_what_cannot_be_drawn_is_not_kept() -> None:
    memory = NGramMemory()
    memory.update((1, 2), {3: 0.5, 4: 1e-60})
    entry = memory.lookup((1, 2))
    assert entry is not None and entry.ids == [3]


def test_saved_and_loaded(tmp_path: Path) -> None:
    memory = NGramMemory(capacity=3000)
    assert isinstance(memory, Memory)
    memory.fit(VOCAB)
    for i in range(1100):  # more than the rows that are made at first
        memory.update((i % VOCAB, i // VOCAB), {i % 7: 0.5, 8: 0.25})
    memory.update((3, 4, 5, 6), {9: 0.25})
    file = tmp_path / "memory"
    memory.save(file)
    assert [path.name for path in tmp_path.iterdir()] == ["memory"]
    other = NGramMemory(capacity=3000)
    other.update((1, 2), {40: 1.0})
    other.load(file)
    assert (len(other), other.vocab_size) == (len(memory), VOCAB)
    for text in ((1, 2), (49, 20), (0, 4, 5, 6), (3, 4, 5, 6)):
        assert other.lookup(text) == memory.lookup(text)
    for one in (memory, other):
        one.update((3, 4, 5, 6), {9: 0.75})
    entry = other.lookup((3, 4, 5, 6))
    assert entry == memory.lookup((3, 4, 5, 6)) and entry is not None and entry.probabilities == [0.5]
    small = NGramMemory(capacity=2)
    small.load(file)
    assert len(small) == 2
    assert small.lookup((3, 4, 5, 6)) is not None, "the newest are kept"
    small.update((9, 9), {1: 0.5})
    assert small.lookup((9, 9)) is not None and len(small) == 2


def test_memories_of_others_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "memory.npz"
    filled(5).save(file)
    with pytest.raises(UnspoolError, match="orders"):
        NGramMemory(orders=(3, 2)).load(file)
    with pytest.raises(UnspoolError, match="vocabulary of 6 tokens but the model has 5"):
        filled(6).load(file)
    with pytest.raises(UnspoolError, match="reset it"):
        Stand(StandOptions(), filled(5), 6)
    with np.load(file) as saved:
        arrays = dict(saved)
    arrays["ids"][0, 0] = 5
    with file.open("wb") as handle:
        np.savez(handle, **arrays)
    with pytest.raises(UnspoolError, match="outside its vocabulary"):
        NGramMemory().load(file)


# The template.


def test_templates_are_trees_of_ordered_siblings() -> None:
    assert len(TEMPLATE) == 80
    assert len(broad_template()) == 625
    assert max(map(len, broad_template())) == 20
    for template in (TEMPLATE, broad_template()):
        seen: set[tuple[int, ...]] = {()}
        for path in template:
            assert path[:-1] in seen
            assert path[-1] == 0 or (*path[:-1], path[-1] - 1) in seen
            seen.add(path)
        assert len(seen) == len(template) + 1
        assert max(rank for path in template for rank in path) < KEPT


@dataclass
class Pass:
    parents: tuple[int, ...]
    accepted: tuple[int, ...]


def test_a_template_keeps_what_was_accepted_most() -> None:
    """Two trees: root with children 1, 2, 3 (3 has a child 4), and root with children 1, 3 where 2 is below 1."""
    one, other = (-1, 0, 0, 0, 3), (-1, 0, 1, 0)
    passes = [Pass(one, (0, 3, 4))] * 3 + [Pass(one, (0, 1))] * 4 + [Pass(other, (0, 1, 2))] * 2 + [Pass(other, (0, 3))]
    # Counts: (0) 6, (1) 1, (2) 3, (2, 0) 3, (0, 0) 2. Place 1 comes before place 2, so it counts as often.
    assert learn_template(passes) == ((0,), (1,), (2,), (2, 0), (0, 0))
    assert learn_template(passes, 3) == ((0,), (1,), (2,))


def test_a_learned_template_is_learned_from_the_passes_of_a_run() -> None:
    toy = ToyModel.random(vocab_size=6, order=1, seed=3)
    memory = NGramMemory()
    options = GenerationOptions(max_new_tokens=300, temperature=0.5, seed=1)
    drafter = Stand(StandOptions(), memory, 6, broad_template(80))
    request = Request([0, 1], drafter, ExactMatch(), options, build_shapers(options))
    steps = [event for event in decode(toy, [request]) if isinstance(event, StepEvent)]
    assert sum(len(step.accepted) > 1 for step in steps) > 20
    learned = learn_template(steps, 12)
    assert learned[0] == (0,)
    tree = Stand(StandOptions(), memory, 6, learned).propose(context([0, 1]), 81)
    assert set(positions(tree)) <= {(), *learned}


# Drafts.


def test_greedy_drafts_are_the_likeliest_tokens_along_the_template() -> None:
    memory = filled()
    drafter = Stand(StandOptions(), memory, VOCAB)
    tree = drafter.propose(context([1, 2]), 100)
    assert positions(tree) == [(), *TEMPLATE]
    assert set(tree.drafts) == {POINT_MASS}
    for node, place in enumerate(positions(tree)[1:], 1):
        entry = memory.lookup((1, 2, *tree.path_tokens(tree.parents[node])))
        assert entry is not None and tree.tokens[node] == entry.ids[place[-1]]
        steps = int(min(entry.probabilities[place[-1]] * 4, 3))
        assert tree.buckets[node] == (2 * 2 + (place[-1] == 0)) * 4 + steps
    for budget in range(1, 81):
        cut = drafter.propose(context([1, 2]), budget)
        assert (cut.tokens, cut.parents) == (tree.tokens[:budget], tree.parents[:budget])
    assert len(Stand(StandOptions(nodes=5), memory, VOCAB).propose(context([1, 2]), 100)) == 6


def test_unknown_ngrams_stay_leaves() -> None:
    memory = NGramMemory()
    memory.update((1, 2), {3: 0.6, 4: 0.3})
    memory.update((2, 4), {5: 0.9})
    drafter = Stand(StandOptions(), memory, VOCAB)
    tree = drafter.propose(context([1, 2]), 81)
    assert {tuple(tree.path_tokens(node)) for node in range(len(tree))} == {(), (3,), (4,), (4, 5)}
    assert drafter.propose(context([2, 1]), 81).tokens == (1,)
    assert drafter.propose(context([2]), 81).tokens == (2,)


def test_without_a_rule_that_tests_draws_the_positions_own_noise_draws() -> None:
    memory = filled()
    text = [5, 1, 2]
    tree = Stand(StandOptions(), memory, VOCAB).propose(context(text, 0.8, seed=9), 81)
    assert set(tree.drafts) == {POINT_MASS}
    for node, children in enumerate(tree.children):
        if children:
            entry = memory.lookup((*text, *tree.path_tokens(node)))
            assert entry is not None
            own = noise.gumbel(9, len(text) + int(tree.depths[node]), VOCAB)
            keys = {t: math.log(p) + own[t] for t, p in zip(entry.ids, entry.probabilities, strict=True)}
            best = sorted(keys, key=lambda token: -keys[token])
            assert [tree.tokens[child] for child in children] == best[: len(children)]


def test_drawn_siblings_say_what_they_were_drawn_from_and_keep_it() -> None:
    memory = filled()
    tree = Stand(StandOptions(), memory, VOCAB).propose(context([1, 2], 0.8, uses_draft_probs=True), 81)
    parents = {tree.parents[node] for node in range(1, len(tree))}
    assert len(tree.distributions) == len(parents), "full vectors only for nodes that got children"
    for node in range(1, len(tree)):
        entry = memory.lookup((1, 2, *tree.path_tokens(tree.parents[node])))
        assert entry is not None
        expected = np.zeros(VOCAB)
        expected[entry.ids] = entry.probabilities
        one = tree.distributions[tree.drafts[node]]
        assert not one.replacement
        np.testing.assert_allclose(one.q, expected / expected.sum(), atol=1e-15)
    before = [one.q.copy() for one in tree.distributions]
    for node in range(len(tree)):
        memory.update((1, 2, *tree.path_tokens(node)), {0: 0.9})
    for one, q in zip(tree.distributions, before, strict=True):
        assert (one.q == q).all()


def test_siblings_are_drawn_without_replacement_in_draw_order() -> None:
    """The frequencies of ordered pairs of first children over seeds."""
    memory = NGramMemory()
    probabilities = [0.4, 0.3, 0.15, 0.05]
    memory.update((1, 2), dict(enumerate(probabilities)))
    drafter = Stand(StandOptions(), memory, 5, ((0,), (1,)))
    q = np.array(probabilities) / sum(probabilities)
    expected = {(a, b): q[a] * q[b] / (1 - q[a]) for a in range(4) for b in range(4) if a != b}
    drawn = [drafter.propose(context([1, 2], 1.0, True, seed), 3).tokens[1:] for seed in range(4000)]
    assert chi_squared(drawn, expected).p_value > 1e-4


def test_fresh_noise_in_every_round_and_for_every_node() -> None:
    """All nodes look up the same distribution, so equal draws would be equal noise."""
    memory = NGramMemory(orders=(1,))
    for token in range(10):
        memory.update((token,), dict.fromkeys(range(10), 0.1))
    drafter = Stand(StandOptions(), memory, 10, tuple((0,) * depth for depth in range(1, 21)))
    rounds = range(1, 201)
    chains = [drafter.propose(context([0] * length, 1.0, True, seed=3), 21).tokens[1:] for length in rounds]
    pairs = [pair for chain in chains for pair in zip(chain[::2], chain[1::2], strict=True)]
    uniform = {(a, b): 0.01 for a in range(10) for b in range(10)}
    assert chi_squared(pairs, uniform).p_value > 1e-4  # two nodes of one round
    turns = [
        pair for one, other in zip(chains[::2], chains[1::2], strict=True) for pair in zip(one, other, strict=True)
    ]
    assert chi_squared(turns, uniform).p_value > 1e-4  # the same node in two rounds


@pytest.mark.parametrize("wrong", [False, True])
def test_lossless_with_a_warm_and_with_a_hostile_memory(wrong: bool) -> None:
    """Every draw and every outcome of the rule, in the first round and in a later one."""
    toy = ToyModel.random(vocab_size=3, order=2, seed=5)

    def make() -> Stand:
        memory = NGramMemory(orders=(2,))
        for first in range(3):
            for second in range(3):
                p = toy.probabilities([first, second])
                memory.update((first, second), dict(enumerate((1 / p / (1 / p).sum() if wrong else p).tolist())))
        return Stand(StandOptions(), memory, 3, ((0,), (1,), (0, 0), (0, 1), (2,)))

    for at in (0, 2):
        text, drafts = every_tree(make, toy, (0, 1), at, budget=6)
        assert len(drafts) > 20
        assert total_variation(joint(Lossless(), toy, text, iter(drafts), 3), toy.distribution(3, text)) < 1e-12


# Learning from passes.


def test_committed_nodes_are_learned_with_their_own_ngrams() -> None:
    """After a greedy run the memory holds the model's own distribution after each n-gram of the text, and no other."""
    toy = ToyModel.random(vocab_size=6, order=2, seed=11)
    memory, prompt = NGramMemory(), [0, 1, 2]
    request = Request(prompt, Stand(StandOptions(), memory, 6), ExactMatch(), GenerationOptions(max_new_tokens=50))
    steps = [event for event in decode(toy, [request]) if isinstance(event, StepEvent)]
    text = prompt + [token for step in steps for token in step.emitted]
    assert len(steps) < 30
    seen = text[: len(text) - len(steps[-1].emitted)]  # the last pass is not observed
    ends = range(len(prompt), len(seen))
    assert len(memory) == sum(len({tuple(text[end - n : end]) for end in ends if end >= n}) for n in ORDERS)
    for end in ends:
        for order in ORDERS:
            if end >= order:
                entry = memory.lookup(tuple(text[end - order : end]))
                assert entry is not None and entry.order == order
                p = toy.probabilities(text[end - 2 : end])
                np.testing.assert_allclose(entry.probabilities, np.sort(p)[::-1], rtol=1e-5)


def test_what_is_learned_is_shaped_as_it_is_sampled() -> None:
    toy = ToyModel.random(vocab_size=6, order=2, seed=11)
    memory = NGramMemory()
    options = GenerationOptions(max_new_tokens=40, temperature=0.5, top_k=3, seed=2)
    drafter = Stand(StandOptions(), memory, 6)
    list(decode(toy, [Request([0, 1, 2], drafter, ExactMatch(), options, build_shapers(options))]))
    entry = memory.lookup((1, 2))
    assert entry is not None
    p = np.sort(toy.probabilities([1, 2]))[::-1][:3] ** 2
    np.testing.assert_allclose(entry.probabilities, p / p.sum(), rtol=1e-5)


def test_samples_of_one_problem_share_the_memory() -> None:
    toy = ToyModel.random(vocab_size=6, order=2, seed=11)

    def passes(memory: NGramMemory, seed: int) -> int:
        options = GenerationOptions(max_new_tokens=40, temperature=0.6, seed=seed)
        request = Request([0, 1], Stand(StandOptions(), memory, 6), ExactMatch(), options, build_shapers(options))
        return sum(isinstance(event, StepEvent) for event in decode(toy, [request]))

    shared = NGramMemory()
    together = [passes(shared, seed) for seed in range(6)]
    alone = [passes(NGramMemory(), seed) for seed in range(6)]
    assert together[0] == alone[0]
    assert sum(together[1:]) < sum(alone[1:])


def test_options_out_of_range_are_refused() -> None:
    for nodes in (0, 81):
        with pytest.raises(UnspoolError, match="must lie in"):
            StandOptions(nodes=nodes)
    for orders in ((), (2, 3), (2, 2), (2, 0)):
        with pytest.raises(UnspoolError, match="orders"):
            NGramMemory(orders)
    with pytest.raises(UnspoolError, match="capacity"):
        NGramMemory(capacity=0)
