"""RSD: both trees, exactly and by sampling, the conditioning of stochastic beam search, and what the rule is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.conformance.harness import ChiSquared, chi_squared
from unspool.backends.toy import ToyModel
from unspool.conformance.enumeration import (
    Node,
    Row,
    Script,
    Text,
    build,
    independent,
    joint,
    no_replacement,
    ordered_draws,
    outcomes,
    total_variation,
    trees,
    without,
)
from unspool.conformance.pairs import KINDS, normalised, pair
from unspool.engine import assistant
from unspool.engine.assistant import Draws
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Context, Drafter
from unspool.engine.noise import gumbel
from unspool.engine.options import GenerationOptions
from unspool.engine.stochastic_beam import Beam, conditioned
from unspool.engine.trace import StepEvent
from unspool.engine.tree import POINT_MASS, DraftDistribution, TokenTree
from unspool.errors import UnspoolError
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.acceptance.lossless import Lossless
from unspool.methods.drafters import dyspec
from unspool.methods.drafters.plain import Plain
from unspool.methods.drafters.rsd import RSD, RSDOptions
from unspool.methods.shaping import _built_in as shaping

TOLERANCE = 1e-12
Make = Callable[[ToyModel], Drafter]


def beam(num_beams: int, draft_length: int) -> RSDOptions:
    return RSDOptions("beam", num_beams, draft_length)


def constant(*branching: int) -> RSDOptions:
    return RSDOptions("constant", branching=branching)


def maker(options: RSDOptions) -> Make:
    return lambda draft: RSD(options, draft, draft.vocab_size)


def context(text: Text, seed: int = 0, temperature: float = 1.0, uses_draft_probs: bool = True) -> Context:
    return Context(list(text), len(text), seed, temperature, uses_draft_probs)


def every_tree(
    patch: pytest.MonkeyPatch, make: Make, draft: ToyModel, text: Text, budget: int = 128
) -> Iterator[tuple[TokenTree, float]]:
    """Every tree that a drafter can draw, with its probability: in place of the noise a script orders the draws."""
    found: dict[Text, tuple[TokenTree, float]] = {}
    scripts: list[tuple[int, ...]] = [()]
    patch.setattr(Draws, "noise", lambda *_: 0.0)
    while scripts:
        script = Script(scripts.pop(), scripts)

        def ordered(rows: Row, k: int, script: Script = script) -> tuple[np.ndarray, Row]:
            rest, ids = np.exp(rows[0]), []
            while len(ids) < k and rest.any():
                ids.append(script.draw(rest / rest.sum()))
                rest[ids[-1]] = 0
            return np.array([ids]), -np.arange(float(len(ids)))[None]

        for module in (assistant, dyspec):
            patch.setattr(module, "top_k", ordered)
        tree = make(draft).propose(context(text), budget)
        key = tree.tokens + tree.parents
        found[key] = tree, script.probability + (found[key][1] if key in found else 0.0)
    yield from found.values()


def loop(drafter: Drafter, target: ToyModel, prompt: Text, options: GenerationOptions) -> list[StepEvent]:
    events = decode(target, [Request(prompt, drafter, Lossless(), options)])
    return [event for event in events if isinstance(event, StepEvent)]


def sampled(make: Make, target: ToyModel, draft: ToyModel, n: int) -> ChiSquared:
    """The joint of three tokens, through the real loop, against the target's own."""
    samples = []
    for seed in range(n):
        made = loop(make(draft), target, (0,), GenerationOptions(max_new_tokens=3, temperature=1.0, seed=seed))
        samples.append(tuple(token for step in made for token in step.emitted))
    return chi_squared(samples, target.distribution(3, (0,)))


def rearranged(tree: TokenTree, order: list[int]) -> TokenTree:
    """The nodes ``order`` of a tree, in that order."""
    place = {old: new for new, old in enumerate(order)} | {-1: -1}
    what = [None if d == POINT_MASS else tree.distributions[d] for d in tree.drafts]
    return build([(tree.tokens[i], place[tree.parents[i]], what[i]) for i in order])


class Shuffled:
    """Moves siblings out of the order in which they were drawn."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self._rng = np.random.default_rng(0)
        self.start, self.observe = drafter.start, drafter.observe

    def propose(self, context: Context, budget: int) -> TokenTree:
        tree = self._drafter.propose(context, budget)
        return rearranged(tree, sorted(self._rng.permutation(len(tree)).tolist(), key=lambda i: int(tree.depths[i])))


class Pruned(Shuffled):
    """Removes what was drawn against the odds."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        tree = self._drafter.propose(context, budget)
        keep = [0]
        for node in range(1, len(tree)):
            likely = tree.distributions[tree.drafts[node]].q[tree.tokens[node]] > 0.3
            if tree.parents[node] in keep and likely:
                keep.append(node)
        return rearranged(tree, keep)


def bigrams(noise: float) -> tuple[ToyModel, ToyModel]:
    target = ToyModel.random(seed=1, vocab_size=4, order=1, floor=0.03)
    return target, target.related(noise, seed=2)


# The tree of constant branching, by enumeration.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("vocab_size", "branching"),
    [(3, (2, 2)), (3, (3, 1)), (3, (2, 1, 1)), (4, (2, 1)), (4, (4,)), (5, (5,)), (5, (2,))],
)
def test_constant_branching_is_exact(
    monkeypatch: pytest.MonkeyPatch, kind: str, vocab_size: int, branching: tuple[int, ...]
) -> None:
    """(4,) of 4 tokens and (5,) of 5 leave nothing in the draft; ``one_hot`` nothing in the residual."""
    target, draft = pair(kind, vocab_size, seed=1)
    length = 3 if vocab_size == 3 else 2
    found = joint(Lossless(), target, (1,), every_tree(monkeypatch, maker(constant(*branching)), draft, (1,)), length)
    assert sum(found.values()) == pytest.approx(1, abs=TOLERANCE)
    assert total_variation(found, target.distribution(length, (1,))) < TOLERANCE


@pytest.mark.parametrize(
    ("branching", "nodes"), [((2, 2), 6), ((3, 1), 6), ((2, 1, 1), 6), ((2, 2, 2), 14), ((2, 2, 2, 2), 30)]
)
def test_nodes_of_constant_branching(branching: tuple[int, ...], nodes: int) -> None:
    draft = ToyModel.random(vocab_size=6)
    tree = RSD(constant(*branching), draft, 6).propose(context((0, 1)), 128)
    assert len(tree) == 1 + nodes
    for node, below in enumerate(tree.children):
        depth = int(tree.depths[node])
        assert len(below) == (branching[depth] if depth < len(branching) else 0)
        assert len({tree.tokens[child] for child in below}) == len(below)


# The beam.


def test_conditioning_is_the_formula_where_that_can_be_computed() -> None:
    rng = np.random.default_rng(0)
    for maximum in (-3.0, 0.0, 2.5):
        keys = np.sort(rng.gumbel(size=20))[::-1] + 1.0
        naive = -np.log(np.exp(-maximum) - np.exp(-keys[0]) + np.exp(-keys))
        np.testing.assert_allclose(conditioned(keys, maximum), naive, atol=1e-12)


def test_conditioning_at_the_edges() -> None:
    """The largest key takes the maximum exactly, also among equals; nothing overflows or is NaN."""
    for maximum in (-800.0, -1.0, 0.0, 30.0):
        for first in (-900.0, -40.0, 0.0, 40.0):
            keys = first - np.array([0.0, 0.0, 1e-14, 1e-3, 1.0, 50.0, 1000.0, np.inf])
            moved = conditioned(keys, maximum)
            assert moved[0] == moved[1] == maximum
            assert not np.isnan(moved).any()
            assert (np.diff(moved) <= 0).all()
            assert np.isneginf(moved[-1]) and np.isfinite(moved[:-1]).all()


def test_a_prefix_is_worth_its_best_continuation() -> None:
    """Of a whole level, nothing cut off: distinct prefixes, best first, true log-probabilities."""
    draft = ToyModel.random(seed=3, vocab_size=4, order=2)
    rng = np.random.default_rng(1)
    level, paths = Beam(), [()]
    for depth in range(1, 4):
        rows = [np.log(draft.probabilities((0, 1, *path))) for path in paths]
        below = level.expanded(rows, [rng.gumbel(size=4) for _ in paths], 4**depth)
        for i, value in enumerate(level.perturbed):
            assert below.perturbed[below.parents == i].max() == value
        assert (np.diff(below.perturbed) <= 0).all()
        paths = [(*paths[i], token) for i, token in zip(below.parents.tolist(), below.tokens.tolist(), strict=True)]
        assert len(set(paths)) == len(paths) == 4**depth
        exact = draft.distribution(depth, (0, 1))
        np.testing.assert_allclose(np.exp(below.logprobs), [exact[path] for path in paths])
        level = below


def every_beam(draft: ToyModel, prompt: Text, width: int, depth: int) -> Iterator[tuple[TokenTree, float]]:
    """Every tree of stochastic beam search, by its definition: a level holds the first draws of all prefixes.

    A prefix stands where its best continuation does, so the deepest draws lead the order of the levels above, and the
    rest of each is drawn from what is left.
    """
    levels = [draft.distribution(length, prompt) for length in range(depth + 1)]

    def above(paths: tuple[Text, ...], length: int) -> Iterator[tuple[list[tuple[Text, ...]], float]]:
        if not length:
            yield [], 1.0
            return
        known = [*levels[length]]
        q = np.array([*levels[length].values()])
        seen = list(dict.fromkeys(path[:length] for path in paths))
        rest = without(q, [known.index(path) for path in seen])
        draws = ordered_draws(rest, width - len(seen)) if rest is not None else iter([((), 1.0)])
        for order, weight in draws:
            level = (*seen, *(known[i] for i in order))
            for others, inner in above(level, length - 1):
                yield [*others, level], weight * inner

    for order, weight in above((), depth):
        nodes: list[Node] = [(prompt[-1], -1, None)]
        place = {(): 0}
        groups: dict[Text, DraftDistribution] = {}
        for level in order:
            for path in level:
                parent = path[:-1]
                if parent not in groups:
                    groups[parent] = DraftDistribution(draft.probabilities((*prompt, *parent)), replacement=False)
                place[path] = len(nodes)
                nodes.append((path[-1], place[parent], groups[parent]))
        yield build(nodes), weight


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("vocab_size", "width", "depth"), [(3, 2, 3), (3, 3, 2), (4, 2, 2), (5, 2, 2), (3, 2, 1)])
def test_stochastic_beam_search_is_exact(kind: str, vocab_size: int, width: int, depth: int) -> None:
    target, draft = pair(kind, vocab_size, seed=2)
    found = joint(Lossless(), target, (0,), every_beam(draft, (0,), width, depth), 3)
    assert total_variation(found, target.distribution(3, (0,))) < TOLERANCE


@pytest.mark.parametrize(("kind", "width", "depth"), [("zeros", 2, 3), ("far", 3, 2)])
def test_the_beam_is_drawn_as_defined(kind: str, width: int, depth: int) -> None:
    """Trees that the drafter draws against the distribution of all of them; a sum over those is exact (see above)."""
    _, draft = pair(kind, 3, seed=2)
    expected: dict[Text, float] = {}
    for tree, weight in every_beam(draft, (0,), width, depth):
        expected[tree.tokens + tree.parents] = expected.get(tree.tokens + tree.parents, 0.0) + weight
    assert sum(expected.values()) == pytest.approx(1)
    drafter = RSD(beam(width, depth), draft, 3)
    found = [drafter.propose(context((0,), seed), 128) for seed in range(1500)]
    result = chi_squared([tree.tokens + tree.parents for tree in found], expected)
    assert result.p_value > 1e-4, result


def test_levels_of_the_beam() -> None:
    """All prefixes of a level differ, and prefixes of which no child is kept stay as leaves."""
    draft = ToyModel.random(seed=3, vocab_size=6, order=2)
    leaves = 0
    for seed in range(50):
        tree = RSD(beam(3, 3), draft, 6).propose(context((0, 1), seed), 128)
        assert np.bincount(tree.depths).tolist() == [1, 3, 3, 3]
        paths = [tuple(tree.path_tokens(node)) for node in range(len(tree))]
        assert len(set(paths)) == len(paths)
        leaves += sum(not tree.children[node] for node in range(1, 7))
    assert leaves > 0


@pytest.mark.nightly
@pytest.mark.parametrize("options", [beam(2, 2), constant(2, 1)], ids=["beam", "constant"])
@pytest.mark.parametrize("noise", [0.8, 3.0])
def test_the_real_loop_keeps_the_distribution(options: RSDOptions, noise: float) -> None:
    assert sampled(maker(options), *bigrams(noise), 1500).p_value > 1e-4


@pytest.mark.nightly
@pytest.mark.parametrize("fault", [Shuffled, Pruned])
def test_draws_of_the_beam_that_are_moved_or_removed_are_caught(fault: type[Shuffled]) -> None:
    target, draft = bigrams(0.8)
    assert sampled(maker(beam(3, 2)), target, draft, 600).p_value > 1e-4
    assert sampled(lambda model: fault(RSD(beam(3, 2), model, 4)), target, draft, 600).p_value < 1e-6


@pytest.mark.parametrize("fault", [Shuffled, Pruned])
def test_draws_that_are_moved_or_removed_are_caught(monkeypatch: pytest.MonkeyPatch, fault: type[Shuffled]) -> None:
    target, draft = pair("close", 3, seed=1)
    drafts = every_tree(monkeypatch, lambda model: fault(RSD(constant(3, 1), model, 3)), draft, (1,))
    assert total_variation(joint(Lossless(), target, (1,), drafts, 3), target.distribution(3, (1,))) > 0.01


# What the paper claims for it.

FAR = ((0.142, 0.083, 0.451, 0.134, 0.190), (0.024, 0.833, 0.131, 0.008, 0.004))
CLOSE = ((0.238, 0.145, 0.313, 0.239, 0.065), (0.239, 0.186, 0.243, 0.257, 0.075))


@pytest.mark.parametrize(
    ("rows", "figures"),
    [(FAR, {1: (0.25, 0.25), 2: (0.375, 0.733), 3: (0.480, 0.839)}), (CLOSE, {1: (0.93, 0.93), 2: (0.947, 0.951)})],
    ids=["far", "close"],
)
def test_acceptance_with_and_without_replacement(
    rows: tuple[tuple[float, ...], ...], figures: dict[int, tuple[float, float]]
) -> None:
    """Pairs at a total variation of 0.75 and 0.07, fitted to known acceptance of one to three drafts."""
    target, draft = (ToyModel(np.tile(normalised(np.array(row)), (6, 1))) for row in rows)
    for count, known in figures.items():
        for siblings, expected in zip((independent, no_replacement), known, strict=True):
            accepted = 0.0
            for tree, weight in trees(draft, (0,), ((),) * count, siblings):
                for decision, probability in outcomes(Lossless(), target, (0,), tree):
                    accepted += weight * probability * (len(decision.path) > 1)
            assert accepted == pytest.approx(expected, abs=0.01)


# What it drafts under each rule, and what it costs.


@pytest.mark.parametrize("options", [beam(3, 3), constant(3, 2)], ids=["beam", "constant"])
def test_the_rule_is_told_what_was_drawn_from(options: RSDOptions) -> None:
    draft = ToyModel.random(seed=5, vocab_size=6, order=2)
    tree = RSD(options, draft, 6).propose(context((0, 1), seed=3, temperature=0.7), 128)
    for node in range(1, len(tree)):
        parent = tree.parents[node]
        q = normalised(draft.probabilities((0, 1, *tree.path_tokens(parent))) ** (1 / 0.7))
        distribution = tree.distributions[tree.drafts[node]]
        assert not distribution.replacement
        np.testing.assert_allclose(distribution.q, q, atol=1e-12)
        assert len({tree.drafts[child] for child in tree.children[parent]}) == 1


def test_constant_tree_under_the_same_noise() -> None:
    """The tokens whose log-probability and noise of the position are the largest, best first."""
    draft = ToyModel.random(seed=5, vocab_size=6, order=2)
    text = (0, 1)
    tree = RSD(constant(3, 2), draft, 6).propose(context(text, 9, 0.8, uses_draft_probs=False), 128)
    assert set(tree.drafts) == {POINT_MASS}
    for node in range(4):
        keys = np.log(draft.probabilities((*text, *tree.path_tokens(node)))) / 0.8
        keys = keys - np.log(np.exp(keys).sum()) + gumbel(9, len(text) + int(tree.depths[node]), 6)
        assert [tree.tokens[child] for child in tree.children[node]] == np.argsort(-keys)[: (2, 3)[node == 0]].tolist()


def test_beam_under_the_same_noise_follows_its_own_run() -> None:
    """The first prefix of every level is what the draft model would sample with this seed."""
    draft = ToyModel.random(seed=5, vocab_size=6, order=2)
    for seed in range(20):
        tree = RSD(beam(3, 3), draft, 6).propose(context((0, 1), seed, 0.8, uses_draft_probs=False), 128)
        options = GenerationOptions(max_new_tokens=3, temperature=0.8, seed=seed)
        events = decode(draft, [Request((0, 1), Plain(), ExactMatch(), options, shaping.build(options))])
        run = [token for event in events if isinstance(event, StepEvent) for token in event.emitted]
        assert [tree.tokens[int(np.argmax(tree.depths == depth))] for depth in (1, 2, 3)] == run
        assert set(tree.drafts) == {POINT_MASS}


def test_greedy_trees() -> None:
    """Beam search, and the top tokens of each node."""
    draft = ToyModel.random(seed=5, vocab_size=6, order=2)
    tree = RSD(beam(3, 3), draft, 6).propose(context((0, 1), temperature=0.0), 128)
    paths: list[Text] = [()]
    for depth in range(1, 4):
        exact = draft.distribution(depth, (0, 1))
        below = [path for path in exact if path[:-1] in paths]
        paths = sorted(below, key=lambda path: -exact[path])[:3]
        assert [tuple(tree.path_tokens(node)) for node in np.flatnonzero(tree.depths == depth).tolist()] == paths
    tree = RSD(constant(2, 2), draft, 6).propose(context((0, 1), temperature=0.0), 128)
    for node in range(3):
        p = draft.probabilities((0, 1, *tree.path_tokens(node)))
        assert [tree.tokens[child] for child in tree.children[node]] == np.argsort(-p)[:2].tolist()


@pytest.mark.parametrize("options", [beam(4, 3), constant(3, 2, 2)], ids=["beam", "constant"])
def test_a_budget_is_kept_by_the_shape(options: RSDOptions) -> None:
    """A smaller budget is a smaller tree of the same kind: whole levels, equal numbers of children."""
    draft = ToyModel.random(seed=5, vocab_size=6, order=2)
    sizes = []
    for budget in range(1, 25):
        tree = RSD(options, draft, 6).propose(context((0, 1), seed=budget), budget)
        assert len(tree) <= budget
        sizes.append(len(tree) - 1)
        levels = np.bincount(tree.depths)
        if options.tree == "beam":
            assert len(set(levels[1:].tolist())) <= 1
        for level in range(len(levels) - 1 if options.tree == "constant" else 0):
            assert len({len(tree.children[node]) for node in np.flatnonzero(tree.depths == level)}) == 1
    whole = [0, 1, 2, 3, *[4] * 4, *[8] * 4, *[12] * 12]
    uneven = [0, 1, 2, *[3] * 3, *[6] * 3, *[9] * 6, *[15] * 6, *[21] * 3]
    assert sizes == (whole if options.tree == "beam" else uneven)


@pytest.mark.parametrize("options", [beam(4, 3), constant(2, 2, 2)], ids=["beam", "constant"])
def test_one_pass_of_the_draft_model_a_level(options: RSDOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = []
    score = assistant.Assistant.score
    monkeypatch.setattr(
        assistant.Assistant, "score", lambda self, tree, rows: scored.append(len(rows)) or score(self, tree, rows)
    )
    draft = ToyModel.random(seed=5, vocab_size=6, order=2)
    RSD(options, draft, 6).propose(context((0, 1)), 128)
    assert scored == ([1, 4, 4] if options.tree == "beam" else [1, 2, 4])


@pytest.mark.parametrize("options", [beam(2, 3), constant(2, 2, 2)], ids=["beam", "constant"])
def test_a_full_context_of_the_draft_model_ends_drafting(options: RSDOptions) -> None:
    target = ToyModel.random(seed=5, vocab_size=6, order=2)
    short = ToyModel(target.table, max_length=8)
    made = loop(RSD(options, short, 6), target, (0, 1, 2), GenerationOptions(max_new_tokens=20, temperature=1.0))
    for step in made:
        deepest = int(TokenTree(step.tokens, step.parents).depths.max())
        assert deepest == max(0, min(3, 8 - step.position, 22 - step.position))


def test_options_out_of_range_are_refused() -> None:
    for options, said in (
        ({"tree": "wide"}, "tree"),
        ({"num_beams": 0}, "num_beams"),
        ({"draft_length": 0}, "draft_length"),
        ({"branching": ()}, "branching"),
        ({"branching": (2, 0)}, "branching"),
    ):
        with pytest.raises(UnspoolError, match=said):
            RSDOptions(**options)  # type: ignore[arg-type]
    assert RSDOptions(branching=[2, 1]).branching == (2, 1)  # type: ignore[arg-type]
