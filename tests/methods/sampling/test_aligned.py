"""``asap`` and ``cars`` against the exact distribution of the toy model over the texts of a grammar."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from llguidance import LLTokenizer, TokenizerWrapper

import unspool
from tests.methods.constraints.test_grammar import EOS, PIECES, Vocabulary
from unspool.backends.toy import ToyModel
from unspool.decoding.model import Model
from unspool.engine.cost import CostCurve, PassCosts
from unspool.errors import UnspoolError
from unspool.methods.constraints import grammar as grammar_method
from unspool.methods.sampling._aligned import AlignedShaper
from unspool.methods.sampling._trie import AlignedTrie

REGEX = "a(ab|b)?|b(a|c)c|cb{2,3}"
LIMIT = 6


class Tokenizer:
    has_chat_template = False

    def decode(self, ids):
        return "".join(PIECES[i] for i in ids if i != EOS)

    def context(self, prompt, exact=False):
        return []

    def text(self, ids, context=()):
        return self.decode(ids)


@pytest.fixture
def model(monkeypatch):
    # After a, b and c the rest is often wrong, so that masking is far from the truth.
    table = ToyModel.random(vocab_size=8, order=2, seed=5, eos_token_id=EOS).table
    made = Model("toy", "toy", ToyModel(table, EOS), Tokenizer(), [EOS])
    made.assistant = Model("draft", "draft", made.language_model.related(0.7, seed=2), Tokenizer(), [EOS])
    made._costs = PassCosts(CostCurve((1, 4, 64), (32,), ((1.0, 1.0, 4.0),)))
    vocabulary = LLTokenizer(TokenizerWrapper(Vocabulary()), n_vocab=8)
    monkeypatch.setattr(grammar_method, "llguidance_vocabulary", lambda *_: vocabulary)
    return made


def distributions(model, regex=REGEX, temperature=1.0, limit=LIMIT):
    """Exact probabilities of all texts of the grammar: given the grammar, and under step-by-step masking."""
    vocabulary = grammar_method.llguidance_vocabulary()
    grammar = grammar_method.GrammarConstraint(grammar_method.GrammarOptions(regex=regex), vocabulary, {EOS})
    exact, masked = {}, {}

    def follow(path, p, q):
        if path and path[-1] == EOS:
            exact[tuple(path)], masked[tuple(path)] = p, q
            return
        if len(path) == limit:
            return
        before, last = [0, 2, *(t + 1 for t in path)][-2:]
        row = model.language_model.table[before, last] ** (1 / temperature)
        row = row / row.sum()
        legal = row * grammar.allowed(path)
        for token in np.flatnonzero(legal):
            follow([*path, int(token)], p * row[token], q * legal[token] / legal.sum())

    follow([], 1.0, 1.0)
    total = sum(exact.values())
    return {k: v / total for k, v in exact.items()}, masked, total


def distance(seen, exact):
    count = sum(seen.values())
    return 0.5 * sum(abs(seen.get(key, 0) / count - exact.get(key, 0)) for key in seen.keys() | exact.keys())


def drawn(model, count, **options):
    options = {"regex": REGEX, "max_new_tokens": LIMIT, "method": "plain"} | options
    samples = model.sample([1], count, **options)
    return Counter(tuple(r.token_ids) for r in samples.results), samples


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_with_a_complete_trie_asap_is_exact_and_masking_is_not(model, temperature):
    exact, masked, total = distributions(model, temperature=temperature)
    assert distance(Counter(masked), exact) > 0.2
    _, first = drawn(model, 200, sampler="asap", temperature=temperature)
    assert first.attempts == 200 and not first.rejected
    assert first.trie.bound == pytest.approx(total, rel=1e-9)
    seen, _ = drawn(model, 800, sampler="asap", temperature=temperature, trie=first.trie, seed=1)
    # 800 draws from the exact distribution itself lie about as far from it.
    assert distance(seen, exact) < 0.06
    assert seen.keys() <= exact.keys()


def test_the_first_sample_of_asap_is_that_of_masking(model):
    _, masked, _ = distributions(model)
    seen = Counter()
    for seed in range(200):
        seen += drawn(model, 1, sampler="asap", seed=seed)[0]
    assert distance(seen, masked) < 0.13


def test_the_first_accepted_sample_of_cars_is_exact(model):
    exact, masked, _ = distributions(model)
    seen = Counter()
    for seed in range(200):
        seen += drawn(model, 1, sampler="cars", seed=seed)[0]
    assert distance(seen, exact) < 0.13
    assert distance(seen, masked) > 0.2


def test_cars_rejects_less_and_less(model):
    _, _, total = distributions(model)
    _, early = drawn(model, 20)
    _, late = drawn(model, 200, trie=early.trie, seed=1)
    assert early.rejected > 0
    assert late.rejected / late.attempts < early.rejected / early.attempts
    assert late.trie.bound >= total * (1 - 1e-9)


@pytest.mark.parametrize("sampler", ["asap", "cars"])
def test_drafts_change_nothing(model, sampler):
    alone = [r.token_ids for r in drawn(model, 30, sampler=sampler)[1].results]
    for method in ("auto", "draft_model", "suffix", "token_recycling", "rsd", "stand"):
        samples = drawn(model, 30, sampler=sampler, method=method)[1]
        assert [r.token_ids for r in samples.results] == alone
    assert samples.trie.bound == pytest.approx(drawn(model, 30, sampler=sampler)[1].trie.bound)


def test_bounds_only_fall_and_sums_agree(model):
    trie, before = None, 1.0
    for seed in range(40):
        trie = drawn(model, 1, trie=trie, seed=seed)[1].trie
        assert trie.bound <= before + 1e-12
        before = trie.bound


def test_a_grammar_of_everything_is_plain_sampling(model):
    everything = "(a|b|c){0,12}"
    samples = drawn(model, 40, regex=everything)[1]
    assert samples.rejected == 0
    assert samples.attempts == 40 + samples.cut


def test_a_trie_is_kept(model, tmp_path):
    first = drawn(model, 30)[1].trie
    first.save(tmp_path / "trie.json")
    again = AlignedTrie.load(tmp_path / "trie.json")
    assert len(again) == len(first) and again.bound == pytest.approx(first.bound, rel=1e-12)
    assert drawn(model, 30, trie=again, seed=3)[0] == drawn(model, 30, trie=first, seed=3)[0]
    for other in ({"regex": "a"}, {"temperature": 0.5}):
        with pytest.raises(UnspoolError, match="belongs to another"):
            drawn(model, 1, trie=first, **other)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UnspoolError, match="not a trie"):
        AlignedTrie.load(tmp_path / "bad.json")


def test_what_cannot_be_sampled(model):
    for options, message in (
        ({"temperature": 0.0}, "above 0"),
        ({"regex": "(a"}, "unterminated"),
        ({"sampler": "casp"}, "cars"),
        ({"regex": None}, "give one of"),
    ):
        with pytest.raises(UnspoolError, match=message):
            drawn(model, 1, **options)
    with pytest.raises(UnspoolError, match="num_samples must lie in 1 to"):
        drawn(model, 0)
    table = model.language_model.table.copy()
    table[..., 4], table[..., 0] = 0, table[..., 0] + table[..., 4]
    model.language_model = ToyModel(table, EOS)
    with pytest.raises(UnspoolError, match="probability 0"):
        drawn(model, 1, regex="c")


def rare(model, chance):
    """Each ``c`` gets ``chance``, so that ten of them have the tenth power of it."""
    table = model.language_model.table * (1 - chance) / (1 - model.language_model.table[..., 4:5])
    table[..., 4] = chance
    model.language_model = ToyModel(table, EOS)


@pytest.mark.parametrize("chance", [1e-1, 1e-2, 1e-4])
@pytest.mark.parametrize("sampler", ["asap", "cars"])
def test_bounds_lie_above_the_truth_down_to_1e_40(model, sampler, chance):
    """By enumeration of all texts; with a trie of all prefixes they are the truth."""
    rare(model, chance)
    regex, limit = "c{10}(a|b)?", 13
    _, _, total = distributions(model, regex, limit=limit)
    assert chance > 1e-4 or total < 1e-40
    trie, before = None, 0.0
    for seed in range(30):
        options = {"regex": regex, "max_new_tokens": limit, "sampler": sampler, "max_attempts": 3}
        _, samples = drawn(model, 1, trie=trie, seed=seed, **options)
        trie = samples.trie
        assert np.log(total) - 1e-9 <= trie.log_bound <= before + 1e-12
        before = trie.log_bound
    if sampler == "asap":
        assert trie.log_bound == pytest.approx(np.log(total), abs=1e-6)
        assert trie.bound == pytest.approx(total, rel=1e-6)


def test_nearly_all_of_the_mass_may_be_followed(model):
    """A difference of what was there and what was followed would round to nothing."""
    trie = AlignedTrie()
    trie.add((), 0.0, -100.0)
    trie.add((3,), 0.0, -np.inf)
    trie.warm_up([(3,)])
    assert trie.log_bound == pytest.approx(-100.0)
    trie.add((), 0.0, -np.inf)
    trie.warm_up([()])
    assert trie.log_bound == -np.inf and trie.bound == 0.0


def test_what_is_kept_of_a_sample_is_bounded(model):
    """Distributions of eight prefixes, and one of the trie for each token; a child of a forgotten one is left out."""
    grammar = grammar_method.GrammarConstraint(
        grammar_method.GrammarOptions(regex="a*"), grammar_method.llguidance_vocabulary(), {EOS}
    )
    trie, logits = AlignedTrie(), np.zeros(8)
    shaper = AlignedShaper("asap", trie, grammar, 0, 1.0)
    for length in range(40):
        shaper(np.zeros(length, np.int64), logits)
        assert len(shaper._open) <= 8
    shaper(np.array([0, 0, 5]), logits)  # its parent is long forgotten
    shaper.finish()
    assert len(trie) == 40 and trie.bounds([0, 0, 5]) is None
    # One of three tokens is left behind each prefix: a, aa and the end, of eight that are alike.
    assert trie.bound == pytest.approx(sum((1 / 8) ** n for n in range(41)) * 2 / 8, rel=1e-9)


@pytest.mark.model
def test_a_real_model():
    model = unspool.load("smollm2-135m")
    samples = model.sample("Roll a die. Answer with a digit.", 6, regex="[1-6]", max_new_tokens=4, method="suffix")
    assert all(result.parsed in set("123456") for result in samples.results)
    assert samples.trie.bound < 0.13
