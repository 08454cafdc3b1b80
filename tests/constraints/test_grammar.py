"""Grammars over a small vocabulary against enumeration, and on the toy model under every drafter and rule."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pytest
from jsonschema import validate
from llguidance import LLTokenizer, TokenizerWrapper

import unspool
from tests.conformance.harness import EmptyDrafter, OracleDrafter, RandomDrafter
from unspool import methods, shaping
from unspool.backends.toy import ToyModel
from unspool.constraints.grammar import GrammarConstraint, GrammarOptions
from unspool.engine.contracts import Permitting
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.loop import Request, decode
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import EndEvent, StepEvent
from unspool.errors import UnspoolError

PIECES = ["a", "b", "ab", "ba", "c", "aa", "bb"]
EOS = 7
CURVE = CostCurve((1, 4, 64), (32,), ((1.0, 1.0, 4.0),))


class Vocabulary:
    """What llguidance reads: tokens as bytes, and text to ids, the longest piece first."""

    eos_token_id, bos_token_id, unk_token_id = EOS, None, None
    special_token_ids = (EOS,)
    tokens = (*(piece.encode() for piece in PIECES), b"\xff<end>")

    def __call__(self, text):
        text = text if isinstance(text, str) else text.decode()
        ids = []
        while text:
            piece = max((p for p in PIECES if text.startswith(p)), key=len)
            ids.append(PIECES.index(piece))
            text = text[len(piece) :]
        return ids


@pytest.fixture(scope="module")
def vocabulary():
    return LLTokenizer(TokenizerWrapper(Vocabulary()), n_vocab=8)


@pytest.fixture(scope="module")
def smollm2():
    return unspool.load("smollm2-135m")


def constraint(vocabulary, **options):
    return GrammarConstraint(GrammarOptions(**options), vocabulary, {EOS})


def text_of(ids):
    return "".join(PIECES[i] for i in ids if i != EOS)


REGEX = r"(ab|ba)*c?b{0,2}"


def viable(prefix):
    """Whether some text of ``REGEX`` begins so, by trying all that are a little longer."""
    tails = ("".join(tail) for n in range(4) for tail in itertools.product("abc", repeat=n))
    return any(re.fullmatch(REGEX, prefix + tail) for tail in tails)


def test_masks_are_those_of_enumeration_at_every_node(vocabulary):
    grammar = constraint(vocabulary, regex=REGEX)
    for length in range(4):
        for path in itertools.product(range(7), repeat=length):
            if not viable(text_of(path)):
                assert grammar.allowed(path) is None
                continue
            mask = grammar.allowed(path)
            right = [viable(text_of([*path, token])) for token in range(7)]
            right.append(re.fullmatch(REGEX, text_of(path)) is not None)
            assert mask.tolist() == right, path
            assert [grammar.permits(path, token) for token in range(8)] == right


def test_an_end_of_the_tokenizer_that_is_none_of_this_text(vocabulary):
    """Only the end tokens of the request end it, even where the tokenizer has another one."""
    grammar = GrammarConstraint(GrammarOptions(regex="a?"), vocabulary, {PIECES.index("c")})
    for path in ([], [0]):
        mask = grammar.allowed(path)
        assert not mask[EOS] and not grammar.permits(path, EOS)
        assert mask[PIECES.index("c")] and grammar.permits(path, PIECES.index("c"))


def test_masks_do_not_depend_on_what_was_asked_before(vocabulary):
    rng = np.random.default_rng(0)
    grammar = constraint(vocabulary, regex=REGEX)
    for _ in range(300):
        path = rng.integers(0, 8, rng.integers(0, 5)).tolist()
        fresh = constraint(vocabulary, regex=REGEX).allowed(path)
        again = grammar.allowed(path)
        assert (fresh is None and again is None) or (fresh == again).all()


def test_committed_tokens_move_it(vocabulary):
    grammar = constraint(vocabulary, regex=REGEX)
    grammar.allowed([2, 3])
    grammar.advance([2])
    other = constraint(vocabulary, regex=REGEX)
    assert (grammar.allowed([3]) == other.allowed([2, 3])).all()
    grammar.advance([4, EOS])
    assert grammar.allowed([]) is None
    assert not grammar.forced()
    with pytest.raises(ValueError, match="does not allow"):
        other.advance([4, 4])


def test_what_must_follow_is_forced_and_is_all_that_is_allowed(vocabulary):
    grammar = constraint(vocabulary, regex="abab(c|aa)")
    assert text_of(grammar.forced()) == "ab"  # the second one could be the beginning of "aba"
    assert np.flatnonzero(grammar.allowed([])).tolist() == [PIECES.index("ab")]
    assert not grammar.permits([], PIECES.index("a"))
    grammar.advance([PIECES.index("ab")] * 2)
    assert not grammar.forced()


def run(model, options, text, drafter, rule=None):
    surroundings = methods.Surroundings(model, costs=lambda: PassCosts(CURVE), assistant=model.related(0.7, seed=2))
    made = drafter if not isinstance(drafter, str) else methods.drafter(drafter, surroundings)
    request = Request(
        [1],
        made,
        methods.acceptance(rule, options.greedy, surroundings),
        options,
        shaping.build(options),
        frozenset({EOS}),
        constraint=text,
    )
    events = list(decode(model, [request]))
    ids = [token for event in events if isinstance(event, StepEvent) for token in event.emitted]
    (end,) = (event for event in events if isinstance(event, EndEvent))
    return ids, end.reason


GRAMMARS = [{"regex": REGEX}, {"regex": "abab(c|aa)+bb"}, {"grammar": 'start: "a" start "b" | "c"'}]
DRAFTERS = [name for name, method in methods.methods().items() if method.kind == "drafter"]


@pytest.mark.parametrize("name", [*DRAFTERS, "random", "perfect"])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 0.7, "top_k": 3}])
def test_every_drafter_gives_the_text_of_the_grammar_alone(vocabulary, name, options):
    model = ToyModel.random(vocab_size=8, order=2, seed=3, eos_token_id=EOS)
    for grammar, seed in itertools.product(GRAMMARS, range(3)):
        wanted = GenerationOptions(max_new_tokens=12, seed=seed, **options)
        alone, why = run(model, wanted, Unhurried(constraint(vocabulary, **grammar)), EmptyDrafter())
        stubs = {"random": RandomDrafter(8, seed=5), "perfect": OracleDrafter([1, *alone])}
        made = stubs.get(name, name)
        assert run(model, wanted, constraint(vocabulary, **grammar), made) == (alone, why)
        if why == "stop" and "regex" in grammar:
            assert re.fullmatch(grammar["regex"], text_of(alone))


class Unhurried:
    """A constraint that forces nothing and is always asked for its mask: the slow reference."""

    def __init__(self, inner):
        self.allowed, self.advance = inner.allowed, inner.advance

    def forced(self):
        return ()


def test_the_reference_is_slow_and_the_grammar_is_not(vocabulary):
    assert isinstance(constraint(vocabulary, regex="a"), Permitting)
    assert not isinstance(Unhurried(constraint(vocabulary, regex="a")), Permitting)


def test_a_mask_is_not_computed_where_the_choice_is_allowed(vocabulary):
    model = ToyModel.random(vocab_size=8, order=2, seed=3, eos_token_id=EOS)
    asked = []
    grammar = constraint(vocabulary, grammar='start: ("a"|"b"|"c")*')
    allowed = grammar.allowed
    grammar.allowed = lambda path: asked.append(path) or allowed(path)
    run(model, GenerationOptions(max_new_tokens=12), grammar, EmptyDrafter())
    assert not asked
    run(model, GenerationOptions(max_new_tokens=4, temperature=1.0, top_k=2), grammar, EmptyDrafter())
    assert asked


def test_the_lossless_rule_keeps_the_masked_distribution(vocabulary):
    """Frequencies of all texts against their probabilities under step-by-step masking."""
    model = ToyModel.random(vocab_size=8, order=1, seed=4, eos_token_id=EOS)
    count, seen = 2000, {}
    for seed in range(count):
        options = GenerationOptions(max_new_tokens=4, temperature=1.0, seed=seed)
        ids, _ = run(model, options, constraint(vocabulary, regex="(a|b)c?|bb"), "draft_model", "lossless")
        seen[tuple(ids)] = seen.get(tuple(ids), 0) + 1
    grammar = constraint(vocabulary, regex="(a|b)c?|bb")
    exact = {}

    def follow(path, p):
        if path and path[-1] == EOS:
            exact[tuple(path)] = p
            return
        row = model.table[([1, *path][-1]) + 1] * grammar.allowed(path)
        for token in np.flatnonzero(row):
            follow([*path, int(token)], p * row[token] / row.sum())

    follow([], 1.0)
    assert seen.keys() <= exact.keys()
    expected = np.array([exact[key] * count for key in exact])
    observed = np.array([seen.get(key, 0) for key in exact])
    chi2 = ((observed - expected) ** 2 / expected).sum()
    assert chi2 < len(exact) + 5 * np.sqrt(2 * len(exact))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regex": "(ab"}, "unclosed group"),
        ({"regex": r"[^\s\S]"}, "no text fits"),
        ({"grammar": 'start: "ab" start'}, "no text fits"),
        ({"grammar": 'start: start "a"'}, "no text fits"),
        ({"grammar": "start: other"}, "unknown name"),
        ({"json_schema": {"not": {}}}, 'Unimplemented keys: \\["not"\\]'),
        ({"json_schema": {"type": "string", "minLength": 2, "maxLength": 1}}, "Unsatisfiable"),
        ({"json_schema": {"type": "string", "format": "soap"}}, "Unknown format"),
        ({"json_schema": "{"}, "is not JSON"),
        ({"json_schema": 3}, "is an object"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(vocabulary, options, message):
    with pytest.raises(UnspoolError, match=message):
        constraint(vocabulary, **options)


def test_exactly_one_grammar():
    for options in ({}, {"regex": "a", "choices": ["b"]}, {"choices": "yes"}, {"choices": ["yes", ""]}):
        with pytest.raises(UnspoolError):
            GrammarOptions(**options)


def test_a_model_without_an_end_is_refused(vocabulary):
    with pytest.raises(UnspoolError, match="end token"):
        GrammarConstraint(GrammarOptions(regex="a"), vocabulary, ())


def test_left_recursion_is_fine(vocabulary):
    grammar = constraint(vocabulary, grammar='start: start "a" | "b"')
    assert grammar.allowed([1, 0, 0]).tolist() == [True] + [False] * 4 + [True, False, True]


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["x", "y", "zebra"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.mark.model
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_json_on_a_real_model(smollm2, temperature):
    options = {"json_schema": json.dumps(SCHEMA), "temperature": temperature, "max_new_tokens": 64}
    texts = set()
    for method in ("plain", "auto", "token_recycling"):
        result = smollm2.generate("Make up a person as JSON.", method=method, **options)
        assert result.finish_reason == "stop"
        validate(result.parsed, SCHEMA)
        assert result.statistics.by_source["forced"] > 0
        texts.add(result.text)
    assert len(texts) == 1
    cut = smollm2.generate("Make up a person as JSON.", **options | {"max_new_tokens": 5})
    assert (cut.finish_reason, cut.parsed) == ("length", None)


@pytest.mark.model
def test_choices_batches_and_pydantic(smollm2):
    pydantic = pytest.importorskip("pydantic")

    class Answer(pydantic.BaseModel, extra="forbid"):
        right: bool

    first, second = smollm2.generate(["Is the sky blue?", "Is 2 above 3?"], json_schema=Answer, max_new_tokens=16)
    assert isinstance(first.parsed, Answer)
    assert first.text == smollm2.generate("Is the sky blue?", json_schema=Answer, max_new_tokens=16).text
    assert isinstance(second.parsed, Answer)
    assert smollm2.generate("Yes or no?", choices=["yes", "no"], max_new_tokens=4).parsed in ("yes", "no")
    with pytest.raises(UnspoolError, match="cannot be combined"):
        smollm2.generate("Yes or no?", choices=["yes"], constraint="grammar")
