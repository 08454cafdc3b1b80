"""Canvases under a grammar: the verdict against trying out every text, and the loop that obeys it."""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Callable
from itertools import product

import pytest

from unspool.errors import UnspoolError
from unspool.methods.constraints._cfg_canvas import CFGCanvas
from unspool.methods.constraints._cfg_canvas.cfg import Grammar

JSON = r"""
start: value
value: object | array | STRING | NUMBER | "true"
array: "[" [value ("," value)*] "]"
object: "{" [pair ("," pair)*] "}"
pair: STRING ":" value
STRING: /"[^"]*"/
NUMBER: /-?[1-9][0-9]*/
WS: / +/
%ignore WS
"""
# Tokens that hold several lexemes, or a part of one, or what is ignored.
JSON_TEXTS = ["{", "}", "[", "]", ",", ":", '"', "a", "1", '":', " ", "tr", "ue", "-"]

PYTHON = r"""
start: sum
sum: [sum OP] item
item: "(" sum ")" | NAME | call
call: NAME "(" [sum ("," sum)*] ")"
OP: /[-+]/
NAME: /a+/
"""
PYTHON_TEXTS = ["a", "(", ")", ",", "+", "-", "a(", "))"]


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def is_expression(text: str) -> bool:
    """Names, sums and calls with as many arguments as one likes; no unary signs, tuples or trailing commas."""
    if not text or text.strip() != text:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    allowed = (ast.Expression, ast.BinOp, ast.Add, ast.Sub, ast.Call, ast.Name, ast.Load)
    nodes = list(ast.walk(tree))
    calls = all(isinstance(node.func, ast.Name) for node in nodes if isinstance(node, ast.Call))
    return all(isinstance(node, allowed) for node in nodes) and calls and ",)" not in text and "(a)(" not in text


def fits(texts: list[str], slots: list[int | None], right: Callable[[str], bool]) -> bool:
    """By trying out all tokens in all holes; the last id is the end token."""
    eos = len(texts)
    holes = [i for i, token in enumerate(slots) if token is None]
    for filling in product(range(eos + 1), repeat=len(holes)):
        tokens = list(slots)
        for i, token in zip(holes, filling, strict=True):
            tokens[i] = token
        end = tokens.index(eos) if eos in tokens else len(tokens)
        if all(token == eos for token in tokens[end:]) and right("".join(texts[t] for t in tokens[:end])):  # type: ignore[index]
            return True
    return False


@pytest.mark.parametrize(
    ("grammar", "texts", "right", "most"),
    [(JSON, JSON_TEXTS, is_json, 3), (PYTHON, PYTHON_TEXTS, is_expression, 4)],
    ids=["json", "python"],
)
def test_the_verdict_is_that_of_trying_out_every_text(
    grammar: str, texts: list[str], right: Callable[[str], bool], most: int
) -> None:
    canvas = CFGCanvas(Grammar(grammar), [*texts, None], len(texts))
    rng = random.Random(1)
    verdicts = []
    for _ in range(700):
        length = rng.randint(1, 7)
        slots: list[int | None] = [rng.randrange(len(texts) + (rng.random() < 0.3)) for _ in range(length)]
        for place in rng.sample(range(length), min(length, rng.randint(0, most))):
            slots[place] = None
        verdict = canvas.completable(slots)
        assert verdict == fits(texts, slots, right), slots
        verdicts.append(verdict)
    assert 100 < sum(verdicts) < 600


def test_documents_with_holes_can_be_completed() -> None:
    """Longer ones, which cannot be tried out: what holes were punched into a document can be filled again."""
    canvas = CFGCanvas(Grammar(JSON), [*JSON_TEXTS, None], len(JSON_TEXTS))
    rng = random.Random(2)
    text = [
        "{",
        '"',
        "a",
        '":',
        " ",
        "[",
        "1",
        ",",
        "-",
        "1",
        ",",
        "tr",
        "ue",
        "]",
        ",",
        '"',
        "1",
        '"',
        ":",
        "{",
        "}",
        "}",
    ]
    ids: list[int | None] = [JSON_TEXTS.index(t) for t in text] + [len(JSON_TEXTS)] * 3
    assert is_json("".join(text))
    for _ in range(30):
        assert canvas.completable([None if rng.random() < 0.6 else token for token in ids])
    broken = list(ids)
    broken[-4] = JSON_TEXTS.index("]")
    assert not canvas.completable(broken)


def test_an_empty_text_fits_where_the_grammar_says_so() -> None:
    for grammar, fits_too in (('start: "a"*', True), ('start: part part\npart: "a"?', True), ('start: "a"+', False)):
        canvas = CFGCanvas(Grammar(grammar), ["a", None], 1)
        assert canvas.completable([1, 1]) == fits_too
        assert canvas.completable([0, 1]) and canvas.completable([None, 1])
    ignoring = CFGCanvas(Grammar('start: "a"*\n%ignore " "'), ["a", " ", None], 2)
    assert ignoring.completable([1, 2])


def test_hole_lengths_are_exact() -> None:
    canvas = CFGCanvas(Grammar(JSON), [*JSON_TEXTS, None], len(JSON_TEXTS))
    brace, quote, end = JSON_TEXTS.index("{"), JSON_TEXTS.index('":'), len(JSON_TEXTS)
    assert not canvas.completable([brace, None, quote, None, end])
    assert canvas.completable([brace, None, None, None, None, None])
    assert canvas.completable([brace, None, None, quote, None, None, end]) is True


def test_nothing_but_the_end_follows_the_end() -> None:
    canvas = CFGCanvas(Grammar(JSON), [*JSON_TEXTS, None], len(JSON_TEXTS))
    one, end = JSON_TEXTS.index("1"), len(JSON_TEXTS)
    assert canvas.completable([one, end, None])
    assert not canvas.completable([one, end, one])
    assert not canvas.completable([end, None, None])
    assert not canvas.allows([one, None, one], 1, end)
    assert canvas.allows([one, None, None], 1, end)


def test_tokens_that_are_no_text_are_never_filled_in() -> None:
    grammar = Grammar('start: "a" "b"')
    assert CFGCanvas(grammar, ["a", "b", None], 2).completable([None, None])
    assert not CFGCanvas(grammar, ["a", None, None], 2).completable([None, None])
    assert not CFGCanvas(grammar, ["a", "b", None, None], 2).completable([3, None])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start: value", "cannot be read"),
        ("start: start", "no text fits"),
        ('start: "a" start', "no text fits"),
        ("start: A\nA: /a*/", "zero-width"),
        ("start: A\nA: /(?<=b)a/", "not supported"),
        ('begin: "a"', "cannot be read"),
    ],
)
def test_grammars_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UnspoolError, match=message):
        Grammar(text)


def test_canvases_that_cannot_be_completed_are_refused_with_the_reason() -> None:
    canvas = CFGCanvas(Grammar('start: "a" "b" "c"'), ["a", "b", "c", None], 3)
    with pytest.raises(UnspoolError, match="longer canvas"):
        canvas.check([None, None])
    with pytest.raises(UnspoolError, match="contradict the grammar"):
        canvas.check([None, None, 0, None])
    canvas.check([None, None, None, None])
    with pytest.raises(UnspoolError, match="end token"):
        CFGCanvas(Grammar('start: "a"'), ["a"], 1)


def test_rules_that_derive_nothing() -> None:
    canvas = CFGCanvas(Grammar('start: "a" rest "b" rest\nrest: | "c" rest'), ["a", "b", "c", None], 3)
    a, b, c = range(3)
    assert canvas.completable([a, b])
    assert canvas.completable([a, c, c, b, c])
    assert canvas.completable([a, None, None])
    assert not canvas.completable([a, None, a])
    with pytest.raises(UnspoolError, match="longer canvas"):
        CFGCanvas(Grammar('start: rest "a"\nrest:'), ["b", None], 1).check([None])


def test_the_end_token_is_no_text_even_if_it_has_one() -> None:
    canvas = CFGCanvas(Grammar('start: "a"+'), ["a", "a"], 1)
    assert canvas.completable([0, 1])
    assert not canvas.completable([0, 1, 0])
    assert not canvas.completable([1, 1])
