"""The shaped target against a slow reference, its noise, its margins and its constraint."""

from __future__ import annotations

import numpy as np
import pytest

from unspool.engine import noise, numeric
from unspool.engine.options import GenerationOptions
from unspool.engine.target import ShapedTarget
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError
from unspool.methods.shaping._built_in import build

CONTEXT = [3, 1, 4, 1, 5]
TREE = TokenTree((5, 1, 2, 4, 4), (-1, 0, 0, 1, 2))
SHAPED = {
    "temperature": 0.7,
    "top_k": 40,
    "top_p": 0.95,
    "repetition_penalty": 1.5,
    "no_repeat_ngram_size": 2,
    "sequence_bias": {(1, 4): 3.0},
}


class Only:
    """Allows the tokens of a set, and one more: the last token of the path."""

    def __init__(self, vocab, tokens):
        self.vocab, self.tokens = vocab, tokens

    def allowed(self, path):
        mask = np.zeros(self.vocab, dtype=bool)
        mask[[*self.tokens, *path[-1:]]] = True
        return mask

    def forced(self):
        return ()

    def advance(self, tokens):
        raise AssertionError("a target does not advance the constraint")


def scored(vocab, seed=0):
    return np.random.default_rng(seed).normal(0, 2, (len(TREE), vocab)).astype(np.float32)


def slow_row(logits, node, options, constraint=None):
    """Shape by hand: penalties, then the constraint, then the warpers."""
    path = TREE.path_tokens(node)
    row = logits[node].copy()
    penalties = GenerationOptions(
        repetition_penalty=options.repetition_penalty,
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        sequence_bias=options.sequence_bias,
    )
    warpers = GenerationOptions(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
    for shaper in build(penalties):
        row = shaper(np.array(CONTEXT + path), row)
    if constraint is not None:
        row[~constraint.allowed(path)] = -np.inf
    for shaper in build(warpers):
        row = shaper(np.array(CONTEXT + path), row)
    return row


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize(
    "fields", [{}, {"temperature": 1.0}, {"temperature": 0.5}, SHAPED, SHAPED | {"temperature": 0.0}]
)
@pytest.mark.parametrize("vocab", [8, 3000])
def test_equals_a_slow_reference(vocab, fields, constrained):
    for seed in range(8):
        options = GenerationOptions(seed=seed, **fields)
        logits = scored(vocab, seed)
        original = logits.copy()
        constraint = Only(vocab, [0, 2, 6, 7]) if constrained else None
        target = ShapedTarget(TREE, logits, CONTEXT, build(options), options, constraint)
        for node in (3, 0, 4, 2, 1):
            row = slow_row(logits, node, options, constraint).astype(np.float64)
            scores = row.copy()
            if not options.greedy:
                scores += noise.gumbel(seed, len(CONTEXT) + len(TREE.path(node)) - 1, vocab)
            second, first = np.sort(scores)[-2:]
            assert target.choose(node) == int(np.argmax(scores))
            assert target.margin(node, target.choose(node)) == pytest.approx(first - second, abs=1e-12)
            np.testing.assert_allclose(
                target.logprob(node, target.choose(node)),
                numeric.log_softmax(row).max() if options.greedy else numeric.log_softmax(row)[np.argmax(scores)],
                atol=1e-6,  # exponentials are taken in the row's own precision, float32
            )
            p = target.probabilities(node)
            expected = np.eye(vocab)[np.argmax(scores)] if options.greedy else numeric.softmax(row)
            np.testing.assert_allclose(p, expected, rtol=1e-12)
            assert p.dtype == np.float64
        assert np.array_equal(logits, original)


@pytest.mark.parametrize("cut", [{}, {"top_k": 5}])
def test_choice_is_the_draw_of_the_position(cut):
    options = GenerationOptions(temperature=1.0, seed=9, **cut)
    logits = scored(50)
    target = ShapedTarget(TREE, logits, CONTEXT, build(options), options)
    for node, depth in enumerate((0, 1, 1, 2, 2)):
        ids = np.sort(np.argsort(-logits[node])[: cut.get("top_k", 50)])
        weights = logits[node, ids].astype(np.float64)
        assert target.choose(node) == noise.draw(weights, 9, len(CONTEXT) + depth, 50, ids)


def test_same_position_same_noise_whatever_the_tree():
    logits = np.random.default_rng(4).normal(0, 0.1, 64).astype(np.float32)
    options = GenerationOptions(temperature=1.0, seed=3)
    later = []
    for context, tree, node in (
        (CONTEXT, TokenTree.chain([5, 7, 8]), 2),
        (CONTEXT, TREE, 4),
        ([*CONTEXT, 7, 8], TokenTree.chain([8]), 0),
        ([*CONTEXT, 2], TokenTree.chain([2, 6, 6]), 1),
    ):
        rows = np.tile(logits, (len(tree), 1))
        target = ShapedTarget(tree, rows, context, [], options)
        later.append((target.choose(node), target.margin(node, target.choose(node))))
    assert len(set(later)) == 1
    chain = ShapedTarget(TokenTree.chain([5] * 40), np.tile(logits, (40, 1)), CONTEXT, [], options)
    assert len({chain.choose(node) for node in range(40)}) > 10


def test_sampling_follows_the_probabilities():
    options = GenerationOptions(temperature=0.7, top_k=4, seed=1)
    logits = np.tile(np.array([0.0, 1.0, 0.5, -1.0, 0.7, -3.0]), (2000, 1))
    target = ShapedTarget(TokenTree.chain([0] * 2000), logits, [0], build(options), options)
    counts = np.bincount([target.choose(node) for node in range(2000)], minlength=6)
    expected = target.probabilities(0) * 2000
    assert counts[[3, 5]].sum() == 0
    kept = expected > 0
    assert ((counts - expected)[kept] ** 2 / expected[kept]).sum() < 16.3  # 99.9 % of 3 degrees


def test_greedy_ties_go_to_the_lowest_id():
    row = np.zeros((1, 300), dtype=np.float32)
    row[0, [270, 30, 200]] = 2
    for fields in ({}, {"repetition_penalty": 2.0}):
        options = GenerationOptions(**fields)
        target = ShapedTarget(TokenTree.chain([5]), row, CONTEXT, build(options), options)
        assert target.choose(0) == 30
        assert target.margin(0, target.choose(0)) == 0


def test_history_of_a_node_is_the_text_and_its_path():
    seen = []

    def spy(tokens, logits):
        assert tokens.dtype == np.int64
        seen.append(tokens.tolist())
        return logits

    target = ShapedTarget(TREE, scored(8), CONTEXT, [spy], GenerationOptions())
    for node in (4, 0, 4):
        target.choose(node)
    target.logprob(4, 1)
    assert seen == [[*CONTEXT, 2, 4], CONTEXT]  # and each node is shaped once


def test_constraint_acts_before_truncation():
    options = GenerationOptions(temperature=1.0, top_k=2)
    logits = np.arange(8, dtype=np.float32)[None]
    target = ShapedTarget(TokenTree.chain([5]), logits, CONTEXT, build(options), options, Only(8, [0, 1, 2]))
    assert np.flatnonzero(target.probabilities(0)).tolist() == [1, 2]


def test_constraint_that_allows_everything():
    class Anything(Only):
        def allowed(self, path):
            return None

    target = ShapedTarget(TREE, scored(8), CONTEXT, [], GenerationOptions(), Anything(8, []))
    assert target.choose(1) == int(scored(8)[1].argmax())


def test_single_survivor_has_an_infinite_margin():
    for temperature in (0.0, 1.0):
        options = GenerationOptions(temperature=temperature)
        target = ShapedTarget(TREE, scored(8), CONTEXT, build(options), options, Only(8, [6]))
        assert target.choose(0) == 6
        assert target.margin(0, target.choose(0)) == np.inf
        assert target.logprob(0, 6) == 0


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_nothing_may_follow(temperature):
    options = GenerationOptions(temperature=temperature, top_p=0.5)
    target = ShapedTarget(TREE, scored(8), CONTEXT, build(options), options, Only(8, []))
    with pytest.raises(UnspoolError, match="position 5; loosen the constraint"):
        target.choose(0)
    assert target.choose(1) == 1
    options = GenerationOptions(temperature=temperature, top_p=0.5, bad_words_ids=[[i] for i in range(8)])
    target = ShapedTarget(TREE, scored(8), CONTEXT, build(options), options)
    with pytest.raises(UnspoolError, match="position 7; loosen bad_words_ids"):
        target.choose(3)


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.5}, {"repetition_penalty": 1.1}])
def test_logits_that_are_not_numbers(fields):
    options = GenerationOptions(**fields)
    logits = scored(8)
    logits[0, 3] = np.nan
    with pytest.raises(UnspoolError, match="position 5 contain NaN"):
        ShapedTarget(TREE, logits, CONTEXT, build(options), options).choose(0)


@pytest.mark.parametrize("ask", ["choose", "probabilities"])
@pytest.mark.parametrize(
    "fields", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 2}, {"bad_words_ids": [[3]]}]
)
def test_a_nan_beside_the_tokens_that_compete_is_noticed(fields, ask):
    options = GenerationOptions(**fields)
    logits = scored(64)
    block_max = logits.reshape(len(TREE), -1, 8).max(axis=2)  # found by a backend that passes over NaN
    logits[0, 3] = np.nan
    for constraint in (None, Only(64, range(40, 50))):
        target = ShapedTarget(TREE, logits, CONTEXT, build(options), options, constraint, block_max)
        with pytest.raises(UnspoolError, match="position 5 contain NaN"):
            getattr(target, ask)(0)
        getattr(target, ask)(1)


def test_a_shaper_that_makes_nan_is_named():
    options = GenerationOptions(temperature=1.0)
    target = ShapedTarget(TREE, scored(8), CONTEXT, [lambda tokens, row: row * np.nan], options)
    with pytest.raises(UnspoolError, match="a shaper turns the logits at position 5 into NaN"):
        target.choose(0)


@pytest.mark.parametrize("kind", ["greedy", "ties", "sampled", "shaped", "constrained"])
def test_peaks_change_nothing(kind: str) -> None:
    """They are those of raw rows, so what is sampled, shaped or constrained must not be chosen by them."""
    logits = scored(64)
    if kind == "ties":
        logits = np.round(logits)
    options = {"sampled": GenerationOptions(temperature=1.5), "shaped": GenerationOptions(repetition_penalty=50.0)}
    options = options.get(kind, GenerationOptions())
    constraint = Only(64, range(40, 50)) if kind == "constrained" else None
    block_max = logits.reshape(len(TREE), -1, 8).max(axis=2)
    if kind == "shaped":
        logits[:, CONTEXT[-1]] = block_max[:, 0] = 9.0  # the best raw token, which the penalty forbids
    plain, peaked = (
        ShapedTarget(TREE, logits, CONTEXT, build(options), options, constraint, given) for given in (None, block_max)
    )
    for node in range(len(TREE)):
        assert peaked.choose(node) == plain.choose(node)
        assert peaked.margin(node, peaked.choose(node)) == plain.margin(node, plain.choose(node))
