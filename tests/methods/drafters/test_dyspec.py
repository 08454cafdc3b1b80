"""DySpec: both algorithms, exactly and by sampling, their values, and what the rule is told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.methods.drafters.test_rsd import TOLERANCE, Pruned, Shuffled, bigrams, context, every_tree, loop, sampled
from unspool.backends.toy import ToyModel
from unspool.conformance.enumeration import joint, total_variation
from unspool.conformance.pairs import KINDS, normalised, pair
from unspool.engine import assistant
from unspool.engine.assistant import Draws
from unspool.engine.contracts import Context, Drafter
from unspool.engine.noise import gumbel
from unspool.engine.options import GenerationOptions
from unspool.engine.tree import POINT_MASS, TokenTree
from unspool.errors import UnspoolError
from unspool.methods.acceptance.lossless import Lossless
from unspool.methods.drafters.dyspec import DySpec, DySpecOptions

DRAFT = ToyModel.random(seed=5, vocab_size=6, order=2)
TEXT = (0, 1)


def heap(size: int) -> DySpecOptions:
    return DySpecOptions(size)


def above(threshold: float, size: int = 64) -> DySpecOptions:
    return DySpecOptions(size, threshold=threshold)


def maker(options: DySpecOptions) -> Callable[[ToyModel], Drafter]:
    return lambda draft: DySpec(options, draft, draft.vocab_size)


def propose(options: DySpecOptions, context: Context, budget: int = 128) -> TokenTree:
    return DySpec(options, DRAFT, DRAFT.vocab_size).propose(context, budget)


def colder(p: np.ndarray, temperature: float = 0.6) -> np.ndarray:
    return normalised(p ** (1 / temperature))


def values(tree: TokenTree, text: tuple[int, ...]) -> tuple[list[float], list[float]]:
    """By the definition of v: that of every draw which was made, and of every next draw which was not."""
    made, open_draws = [1.0] * len(tree), []
    reached = [1.0] * len(tree)
    for node in range(len(tree)):
        rest = colder(DRAFT.probabilities((*text, *tree.path_tokens(node)))).copy()
        value = reached[node]
        for child in tree.children[node]:
            share = rest[tree.tokens[child]] / rest.sum()
            made[child] = value
            reached[child] = value * share
            value *= 1 - share
            rest[tree.tokens[child]] = 0
        if rest.any():
            open_draws.append(value)
    return made[1:], open_draws


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("vocab_size", "options"),
    [
        (3, heap(5)),
        (3, above(0.02, size=5)),
        (3, above(0.15, size=6)),
        (4, heap(4)),
        (4, above(0.2, size=4)),
        (5, heap(2)),
        (5, above(1.0)),
    ],
    ids=lambda value: f"{value.num_assistant_tokens}-{value.threshold}" if isinstance(value, DySpecOptions) else value,
)
def test_exact(monkeypatch: pytest.MonkeyPatch, kind: str, vocab_size: int, options: DySpecOptions) -> None:
    """Sums over every order of draws at every node; ``one_hot_draft`` has no second token to draw."""
    target, draft = pair(kind, vocab_size, seed=1)
    found = joint(Lossless(), target, (1,), every_tree(monkeypatch, maker(options), draft, (1,)), 3)
    assert sum(found.values()) == pytest.approx(1, abs=TOLERANCE)
    assert total_variation(found, target.distribution(3, (1,))) < TOLERANCE


@pytest.mark.nightly
@pytest.mark.parametrize("options", [heap(5), above(0.1, size=8)], ids=["heap", "threshold"])
@pytest.mark.parametrize("noise", [0.8, 3.0])
def test_the_real_loop_keeps_the_distribution(options: DySpecOptions, noise: float) -> None:
    assert sampled(maker(options), *bigrams(noise), 1500).p_value > 1e-4


@pytest.mark.parametrize("kind", ["close", "far"])
@pytest.mark.parametrize("fault", [Shuffled, Pruned])
@pytest.mark.parametrize("options", [heap(5), above(0.15, size=6)], ids=["heap", "threshold"])
def test_draws_that_are_moved_or_removed_are_caught(
    monkeypatch: pytest.MonkeyPatch, options: DySpecOptions, fault: type[Shuffled], kind: str
) -> None:
    """The far draft is so sure at its temperature that no number of samples would show it."""
    target, draft = pair(kind, 3, seed=1)
    drafts = every_tree(monkeypatch, lambda model: fault(DySpec(options, model, 3)), draft, (1,))
    assert total_variation(joint(Lossless(), target, (1,), drafts, 3), target.distribution(3, (1,))) > (
        0.01 if kind == "close" else 1e-6
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("uses_draft_probs", [True, False])
def test_the_heap_makes_the_draws_of_the_largest_values(temperature: float, uses_draft_probs: bool) -> None:
    """In that order, under every rule, at every size; no draw that was left out was worth more."""
    for seed in range(10):
        for size in (1, 2, 7, 20):
            tree = propose(heap(size), context(TEXT, seed, temperature, uses_draft_probs))
            assert len(tree) == size + 1
            made, left = values(tree, TEXT)
            assert (np.diff(made) <= 1e-12).all()
            assert max(left) <= min(made) + 1e-12


@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.1])
def test_the_threshold_makes_every_draw_that_reaches_it(threshold: float) -> None:
    sizes = set()
    for seed in range(10):
        made, left = values(propose(above(threshold), context(TEXT, seed)), TEXT)
        assert min(made) >= threshold > max(left)
        sizes.add(len(made))
    assert threshold == 0.5 or len(sizes) > 1


@pytest.mark.parametrize("uses_draft_probs", [True, False])
def test_both_algorithms_make_the_same_draws(uses_draft_probs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the last value of the heap as threshold, and the same noise at the same node.

    Nodes come in another order, so noise that is fresh would be another; a rule that tests draws gets that of a depth.
    """
    if uses_draft_probs:
        monkeypatch.setattr(Draws, "noise", lambda self, depth: gumbel(self._context.seed, depth, 6))
    for seed in range(30):
        around = context(TEXT, seed, 1.0, uses_draft_probs)
        best = propose(heap(12), around)
        made, left = values(best, TEXT)
        last = (made[-1] + max(left)) / 2  # above the first draw that was not made, with room for rounding
        found = propose(above(last), around)
        assert {tuple(found.path_tokens(node)) for node in range(len(found))} == {
            tuple(best.path_tokens(node)) for node in range(13)
        }


@pytest.mark.parametrize("options", [heap(12), above(0.05)], ids=["heap", "threshold"])
def test_the_rule_is_told_the_distribution_at_the_draft_temperature(options: DySpecOptions) -> None:
    """That of ``draft_temperature`` and not that of the target."""
    for temperature in (0.6, 1.3):
        tree = propose(options, context(TEXT, 3, temperature))
        for node in range(1, len(tree)):
            distribution = tree.distributions[tree.drafts[node]]
            path = tree.path_tokens(tree.parents[node])
            assert not distribution.replacement
            np.testing.assert_allclose(distribution.q, colder(DRAFT.probabilities((*TEXT, *path))), atol=1e-12)
            siblings = tree.children[tree.parents[node]]
            assert len({tree.tokens[i] for i in siblings}) == len(siblings)
            assert len({tree.drafts[i] for i in siblings}) == 1


@pytest.mark.parametrize("options", [heap(12), above(0.05)], ids=["heap", "threshold"])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_siblings_under_rules_that_test_no_draws(options: DySpecOptions, temperature: float) -> None:
    """The likeliest ones; above temperature 0, those with the noise of the position."""
    tree = propose(options, context(TEXT, 7, temperature, uses_draft_probs=False))
    assert set(tree.drafts) == {POINT_MASS}
    for node, below in enumerate(tree.children):
        keys = np.log(colder(DRAFT.probabilities((*TEXT, *tree.path_tokens(node)))))
        if temperature:
            keys = keys + gumbel(7, len(TEXT) + int(tree.depths[node]), 6)
        assert [tree.tokens[child] for child in below] == np.argsort(-keys)[: len(below)].tolist()


@pytest.mark.parametrize("options", [heap(9), above(0.01, size=9)], ids=["heap", "threshold"])
def test_a_budget_is_kept(options: DySpecOptions) -> None:
    for budget in range(1, 14):
        assert len(propose(options, context(TEXT, budget), budget)) == min(budget, 10)


def test_a_node_that_gets_no_child_costs_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threshold takes one pass a level; the heap fewer than nodes, and scores no node twice."""
    scored: list[list[int]] = []
    score = assistant.Assistant.score
    monkeypatch.setattr(
        assistant.Assistant, "score", lambda self, tree, rows: scored.append(rows) or score(self, tree, rows)
    )
    for seed in range(10):
        scored.clear()
        tree = propose(above(0.05), context(TEXT, seed))
        assert len(scored) in (tree.depths.max(), tree.depths.max() + 1)
        parents = [node for node in range(len(tree)) if tree.children[node]]
        assert [node for rows in scored for node in rows] == parents
        scored.clear()
        tree = propose(heap(12), context(TEXT, seed))
        assert len(scored) < 12
        rows = [node for part in scored for node in part]
        assert len(set(rows)) == len(rows)
        assert {node for node in range(13) if tree.children[node]} <= set(rows)


@pytest.mark.parametrize("options", [heap(12), above(0.01)], ids=["heap", "threshold"])
def test_a_full_context_of_the_draft_model_ends_drafting(options: DySpecOptions) -> None:
    short = ToyModel(DRAFT.table, max_length=8)
    drafter = DySpec(options, short, 6)
    for step in loop(drafter, DRAFT, (0, 1, 2), GenerationOptions(max_new_tokens=20, temperature=1.0)):
        depth = int(TokenTree(step.tokens, step.parents).depths.max())
        assert depth <= max(0, 8 - step.position)
        assert (depth > 0) == (step.position < 8 and step.position < 22)


def test_a_sure_draft_model_gives_a_chain() -> None:
    """Every share is 1: no sibling is worth a draw, and none has probability left."""
    sure = ToyModel(np.eye(6)[np.array([1, 2, 3, 4, 5, 0, 1])])
    for options in (heap(8), above(0.1, size=8)):
        tree = DySpec(options, sure, 6).propose(context((0,)), 128)
        assert tree.is_chain and len(tree) == 9


def test_options_out_of_range_are_refused() -> None:
    for options, said in (
        ({"num_assistant_tokens": 0}, "num_assistant_tokens"),
        ({"draft_temperature": 0.0}, "draft_temperature"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": 1.5}, "threshold"),
    ):
        with pytest.raises(UnspoolError, match=said):
            DySpecOptions(**options)  # type: ignore[arg-type]
