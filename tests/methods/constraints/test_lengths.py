"""Texts that would be too long are refused before llguidance builds anything; what is long and can be is taken."""

from __future__ import annotations

import re
from typing import Any

import pytest

from unspool.errors import UnspoolError
from unspool.methods.constraints.grammar import GrammarOptions, check
from unspool.methods.constraints.grammar import options as grammar_options
from unspool.methods.constraints.grammar.lark_check import prepared_lark
from unspool.methods.constraints.grammar.pattern_reader import shortest

ARRAY = {"type": "array", "items": {"type": "integer"}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regex": "a{1000000}"}, "'a{1000000}' requires at least 1,000,000 characters"),
        ({"regex": "x|((a{100}){100}){100}"}, "requires at least 1,000,000 characters"),
        ({"regex": "a{50000}" * 3}, "requires at least 150,000 characters"),
        ({"grammar": "start: /a{1000000}/"}, "the rule start requires at least 1,000,000 characters"),
        ({"grammar": 'start: "x" T\nT: "a"~1000000'}, "the rule start requires at least 1,000,001"),
        ({"grammar": 'start: x{1000}\nx: y{1000,}\ny: "a" | "b"'}, "the rule start requires at least 1,000,000"),
        ({"json_schema": {"type": "string", "maxLength": 2**40, "minLength": 10**6}}, "minLength is 1,000,000"),
        ({"json_schema": {"anyOf": [{**ARRAY, "minItems": 10**9}]}}, "minItems is 1,000,000,000"),
        ({"json_schema": {"type": "object", "minProperties": 10**6}}, "minProperties is 1,000,000"),
        ({"json_schema": {"type": "string", "pattern": "^a{1000000}$"}}, "requires at least 1,000,000 characters"),
        ({"json_schema": {"type": "integer", "multipleOf": 10**9 + 7}}, "multipleOf 1000000007 is too large"),
        ({"json_schema": {"type": "integer", "multipleOf": 3 * 10**6}}, "multipleOf 3000000 is too large"),
    ],
)
def test_what_only_long_texts_meet_is_refused_before_it_is_built(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_options, "byte_vocabulary", lambda: pytest.fail("llguidance was asked"))
    with pytest.raises(UnspoolError, match=re.escape(message)):
        GrammarOptions(**options).compiled()


@pytest.mark.parametrize(
    "options",
    [
        {"regex": "[ab]{100000}"},
        {"regex": "a{0,1000000}"},
        {"grammar": 'start: x{0,1000000}\nx: "a" | "b"'},
        {"json_schema": {"type": "string", "minLength": 100_000, "maxLength": 2**40}},
        {"json_schema": {**ARRAY, "minItems": 100_000, "maxItems": 2**64}},
        {"json_schema": {"type": "integer", "multipleOf": 10**6}},
    ],
)
def test_what_may_be_long_is_taken(options: dict[str, Any]) -> None:
    check(GrammarOptions(**options))


@pytest.mark.parametrize(
    ("body", "least"),
    [
        ('"a"~7', 7),
        ('"ab"~2..30', 4),
        (r'"\u0041\n"{12}', 24),
        ('"a"{,3} "bcd"', 3),
        ('("ab" | "c" "d" "e"){5,}', 10),
        ('["abc"] "def"', 3),
        ('"abc"? "de"* "f"+ "gh"', 3),
        ("/[a-z]{3,}x/", 4),
        (r"/\p{L}{3}/", 3),
        ('"a".."z" "bc"', 3),
        ("/abc+/ & /a.*c/ & ~/abb{9}/", 3),
        ("word? word word", 4),
        ('word?"cde"', 3),
        ('%json {"const": 1} WORD WORD -> name', 4),
        ('("(" start ")" | "x"){3}', 3),
    ],
)
def test_characters_of_a_grammar_are_counted(body: str, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f'start: {body}\nword: WORD\nWORD: "ab"'
    monkeypatch.setattr("unspool.methods.constraints.grammar.lark_lengths.LONGEST", least)
    prepared_lark(text)
    monkeypatch.setattr("unspool.methods.constraints.grammar.lark_lengths.LONGEST", least - 1)
    with pytest.raises(UnspoolError, match=f"the rule start requires at least {least} characters"):
        prepared_lark(text)


def test_a_pattern_of_either_flavour_is_measured() -> None:
    assert shortest("a{3}|b") == 1
    assert shortest(r"\p{L}{3}x?") == 3
    assert shortest(r"(?<name>ab{2})") == 0  # Rust's, which Python cannot read
