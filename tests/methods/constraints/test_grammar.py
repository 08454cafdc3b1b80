"""Grammars over a small vocabulary against enumeration, and on the toy model under every drafter and rule."""

from __future__ import annotations

import itertools
import json
import re
from decimal import Decimal

import numpy as np
import pytest
from jsonschema import validate
from llguidance import LLTokenizer, TokenizerWrapper
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, pre_tokenizers

import unspool
from tests.methods.constraints.walks import END, takes
from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.conformance.stubs import EmptyDrafter, OracleDrafter, RandomDrafter
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import TokenChecker
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import EndEvent, StepEvent
from unspool.errors import UnspoolError
from unspool.methods.constraints.grammar import DeadEndError, GrammarConstraint, GrammarOptions, ParseError, check
from unspool.methods.constraints.grammar.options import byte_vocabulary
from unspool.methods.shaping import _built_in as shaping
from unspool.models.texts import spelled

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
            assert [grammar.is_allowed(path, token) for token in range(8)] == right


def test_an_end_of_the_tokenizer_that_is_none_of_this_text(vocabulary):
    """Only the end tokens of the request end it, even where the tokenizer has another one."""
    grammar = GrammarConstraint(GrammarOptions(regex="a?"), vocabulary, {PIECES.index("c")})
    for path in ([], [0]):
        mask = grammar.allowed(path)
        assert not mask[EOS] and not grammar.is_allowed(path, EOS)
        assert mask[PIECES.index("c")] and grammar.is_allowed(path, PIECES.index("c"))


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
    assert not grammar.is_allowed([], PIECES.index("a"))
    grammar.advance([PIECES.index("ab")] * 2)
    assert not grammar.forced()


def run(model, options, text, drafter, rule=None):
    resources = methods.Resources(model, costs=lambda: PassCosts(CURVE), assistant=model.related(0.7, seed=2))
    made = drafter if not isinstance(drafter, str) else methods.build(drafter, DRAFTER, resources)
    request = Request(
        [1],
        made,
        methods.acceptance_rule(rule, options.greedy, resources),
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
DRAFTERS = [name for name, method in methods.methods().items() if method.kind is DRAFTER]


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
        self.allowed, self.advance, self.must_end = inner.allowed, inner.advance, inner.must_end

    def forced(self):
        return ()

    def must_end(self):
        mask = self.allowed([])
        return mask is not None and np.flatnonzero(mask).tolist() == [EOS]


def test_the_reference_is_slow_and_the_grammar_is_not(vocabulary):
    assert isinstance(constraint(vocabulary, regex="a"), TokenChecker)
    assert not isinstance(Unhurried(constraint(vocabulary, regex="a")), TokenChecker)


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

    def ends(path):
        whole = constraint(vocabulary, regex="(a|b)c?|bb")
        whole.advance(path)
        return whole.must_end()

    def follow(path, p):
        if path and (path[-1] == EOS or ends(path)):
            exact[tuple(path)] = p
            return
        mask = grammar.allowed(path)
        if np.flatnonzero(mask).tolist() == [EOS]:
            exact[tuple(path)] = p  # complete: no pass is asked for the end token
            return
        row = model.table[([1, *path][-1]) + 1] * mask
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
        ({"regex": "(ab"}, "unterminated subpattern"),
        ({"regex": r"[^\s\S]"}, "no text fits"),
        ({"grammar": 'start: "ab" start'}, "no text fits"),
        ({"grammar": 'start: start "a"'}, "no text fits"),
        ({"grammar": "start: other"}, "unknown name"),
        ({"json_schema": {"not": {}}}, 'Unimplemented keys: \\["not"\\]'),
        ({"json_schema": {"type": "string", "minLength": 2, "maxLength": 1}}, "Unsatisfiable"),
        ({"json_schema": {"type": "string", "format": "soap"}}, "format 'soap' cannot be enforced"),
        ({"json_schema": "{"}, "cannot be read: not JSON"),
        ({"json_schema": '{"type": "string", "type": "integer"}'}, "cannot be read: the key 'type' appears twice"),
        ({"grammar": 'start: %json {"type": "null", "type": "null"}'}, "the key 'type' appears twice"),
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


def spelling_vocabulary():
    """Bytes, and two special tokens that the tokenizer reads in any text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = Fast(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast.add_special_tokens(["<end>", "<turn>"])
    return fast, spelled(LLTokenizer(fast.to_str(), n_vocab=258, eos_token=256))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"choices": ["<end>"]}, "<end>"),
        ({"choices": ["b", "a<turn>b<end>c"]}, "a<turn>b<end>c"),
        ({"regex": "<turn>é<end>"}, "<turn>é<end>"),
        ({"grammar": 'start: "x" "<end>"'}, "x<end>"),
        ({"json_schema": {"const": {"<turn>": "<end>"}}}, '{"<turn>": "<end>"}'),
    ],
)
def test_text_that_spells_a_special_token_is_text(options, text):
    fast, vocabulary = spelling_vocabulary()
    assert fast.encode("a<end>").ids[-1] == 256  # the tokenizer itself reads the token
    grammar = GrammarConstraint(GrammarOptions(**options), vocabulary, {256})
    path = []
    while not grammar.must_end():
        for token in grammar.forced() or [int(np.flatnonzero(grammar.allowed(()))[0])]:
            assert not grammar.allowed(())[256:].any()
            grammar.advance([token])
            path.append(token)
    assert fast.decode(path, skip_special_tokens=False) == text and max(path) < 256


@pytest.mark.parametrize("make", [lambda i: f"word {i} of the list", lambda i: f"{i * 7919 % 50021:x}-{i}"])
def test_fifty_thousand_choices(make):
    texts = [make(i) for i in range(50_000)]
    options = GrammarOptions(choices=texts)
    for text in (texts[0], texts[-1], texts[31_234]):
        assert takes(GrammarConstraint(options, byte_vocabulary(), {END}), text)
    assert not takes(GrammarConstraint(options, byte_vocabulary(), {END}), texts[5] + "x")


def test_many_alternatives_of_a_rule_work_or_are_refused_before_work():
    grammar = constraint_of_bytes(grammar="start: " + " | ".join(f'"w{i}"' for i in range(5000)))
    assert takes(grammar, "w4999") and not takes(grammar, "w5000")
    with pytest.raises(UnspoolError, match=r"20001 alternatives.*use choices"):
        constraint_of_bytes(grammar="start: " + " | ".join(f'"w{i}"' for i in range(20_001)))


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ('start: "a" <end>', "special token <end>"),
        ('start: "a" <[256]> "b"', "special token"),
        ('start: "x" t\nt[max_tokens=3]: /[a-z]*/', "sets max_tokens for t"),
        ('start: "x" t\nt[temperature=0.5]: /[a-z]*/', "sets temperature for t"),
        ('start: "x" t\nt[capture, lazy]: /[a-z]*/', "sets capture for t"),
        ('%llguidance {"no_forcing": true}\nstart: "a"', "%llguidance"),
        ('start: "a" other | "b"\nother: "x" other', "no text fits the rule other"),
        ('start: one?\none: two+\ntwo: "(" one ")" | one "," two', "no text fits the rule"),
        ('start: "a" X | "b"\nX: /[^\\s\\S]/', "no text fits the terminal X"),
        ('start: "a" /[^\\s\\S]/ | "b"', "no text fits the pattern"),
        ('start: %json {"type": "object"}', "must name all properties"),
        ('start: %json {"type": "array"}', "must name all properties"),
        ('start: %json {"type": "string", "format": "soap"}', "format 'soap'"),
        ('start: %json {"x-guidance": {"lenient": true}, "not": {}}', "x-guidance"),
        ("start: %json {", "is not JSON"),
    ],
)
def test_what_a_lark_grammar_may_not_say_is_refused_by_name(grammar, message):
    with pytest.raises(UnspoolError, match=message):
        constraint_of_bytes(grammar=grammar)


def test_json_in_a_lark_grammar_is_that_of_a_schema():
    schema = {"type": "object", "properties": {"d": {"type": "string", "format": "date"}, "n": {"type": "integer"}}}
    schema |= {"additionalProperties": False, "required": ["d"]}
    grammar = constraint_of_bytes(grammar=f'start: "<" call ">"  // a comment with "\ncall: %json {json.dumps(schema)}')
    assert takes(grammar, '<{"d": "2024-02-29", "n": 3}>')
    for wrong in ('<{"d":"2024-02-29"}>', '<{"d": "2023-02-29"}>', '<{"d": "2024-02-29", "d": "2024-02-29"}>'):
        assert not takes(grammar, wrong)


def test_lark_grammars_that_end_are_taken():
    for grammar, text in (
        ('start: item ("," item)*\nitem: WORD | "[" start "]"\nWORD: /[a-z]+/', "a,[b,c]"),
        ('start: "a"~0..2 | [other]\nother: "b" other?', "aa"),
        ('?start: sum\n!sum: sum "+" /[0-9]/ -> more | /[0-9]/', "1+2"),
        ('start: %regex {"substring_words": "a b"}', "a b"),
        ('start[lazy]: /a*;/ "#|<x>"', "aa;#|<x>"),
    ):
        assert takes(constraint_of_bytes(grammar=grammar), text), grammar


def constraint_of_bytes(**options):
    return GrammarConstraint(GrammarOptions(**options), byte_vocabulary(), {END})


def test_a_text_must_end_where_nothing_but_its_end_may_follow(vocabulary):
    grammar = constraint(vocabulary, choices=["ab", "abb", "c"])
    assert not grammar.must_end()
    grammar.advance([2])
    assert not grammar.must_end()  # complete, but "b" may follow
    grammar.allowed([1])
    grammar.advance([1])
    assert grammar.must_end()
    grammar.advance([EOS])
    assert not grammar.must_end()
    assert not constraint(vocabulary, regex="a*").must_end()


def test_a_grammar_is_checked_without_a_model():
    check(GrammarOptions(json_schema={"type": "integer"}))
    for options, message in (
        ({"json_schema": {"not": {}}}, "not"),
        ({"regex": "a{100000}"}, "no text of fewer than 10,000 tokens"),
        ({"grammar": "start: x"}, "unknown name"),
    ):
        with pytest.raises(UnspoolError, match=message):
            check(GrammarOptions(**options))


def test_a_dead_end_tells_the_text_so_far(vocabulary, monkeypatch):
    grammar = constraint(vocabulary, regex="abc")
    grammar.advance([2])
    monkeypatch.setattr(grammar._matcher, "mask", lambda: np.zeros(8, np.bool_))
    with pytest.raises(DeadEndError, match="no token can follow; the text so far is 'ab'") as caught:
        grammar.allowed([])
    assert caught.value.text == "ab"


def test_half_a_character_is_no_text():
    for options in ({"choices": ["a", "\ud800"]}, {"regex": "\udc00"}):
        with pytest.raises(UnspoolError, match="half a character"):
            GrammarOptions(**options)


def test_a_text_that_cannot_be_read_is_told_with_the_reason():
    options = GrammarOptions(json_schema={"type": "object"})
    assert options.parse('{"a": 1}') == {"a": 1}
    for text, why in (
        ('{"a": 1, "a": 2}', "'a' appears twice"),
        ("1e400", "too large"),
        ("NaN", "not a JSON number"),
        ("{", "JSON"),
    ):
        with pytest.raises(ParseError, match=why):
            options.parse(text)
    assert GrammarOptions(regex="a").parse("a") == "a"


def test_what_pydantic_refuses_behind_a_schema_is_a_parse_error():
    pydantic = pytest.importorskip("pydantic")

    class Order(pydantic.BaseModel, extra="forbid"):
        pieces: int
        price: Decimal = Decimal(1)

        @pydantic.field_validator("pieces")
        @classmethod
        def by_the_dozen(cls, value):
            if value % 12:
                raise ValueError("sold by the dozen")
            return value

    options = GrammarOptions(json_schema=Order)
    assert options.parse('{"pieces": 24}').pieces == 24
    for text, why in (('{"pieces": 7}', "sold by the dozen"), ('{"pieces": 12, "price": "-"}', "price")):
        assert takes(GrammarConstraint(options, byte_vocabulary(), {END}), text)
        with pytest.raises(ParseError, match=why) as caught:
            options.parse(text)
        assert "\n" not in str(caught.value)


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
