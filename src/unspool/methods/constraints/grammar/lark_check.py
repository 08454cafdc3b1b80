"""What a grammar in llguidance's Lark form may contain here. llguidance reads it; this finds what it would ignore.

Refused are special tokens (they are not part of the text, and a text ends by itself), settings that need more than a
mask (``temperature``, ``max_tokens``, ``stop``, ``capture``), endless rules, terminals without a text, texts that are
too long, and more alternatives than the parser supports. A JSON Schema in ``%json`` is prepared like a ``json_schema``.
It must name all properties of its objects, because nothing else could detect a duplicate name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from unspool.errors import UnspoolError
from unspool.methods.constraints.grammar.lark_lengths import Lexeme, check_lengths
from unspool.methods.constraints.grammar.schema_check import prepared
from unspool.methods.constraints.grammar.schema_walk import schemas, types
from unspool.storage.text_files import unique

JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON as ``json.dumps`` writes it."""

_ALTERNATIVES = 20_000
_SETTINGS = {"temperature", "max_tokens", "stop", "stop_capture", "capture"}
_LEXEME = re.compile(
    r"""(?P<space>\s+|//[^\n]*|\#[^\n]*)
    |(?P<text>"(?:\\.|[^"\\\n])*"i?|/(?![/*])(?:\\.|[^/\\\n])+/[a-z]*)
    |(?P<special><\[[^\]\n]*\]>|<[^<>\s]+>)
    |(?P<directive>%[a-z]+)
    |(?P<name>(?:(?m:^)[?!])?[A-Za-z_][A-Za-z0-9_]*)
    |(?P<other>->|::|~|\.\.|[\s\S])""",
    re.VERBOSE,
)


def prepared_lark(grammar: str) -> tuple[str, list[tuple[str, str]]]:
    """The grammar for llguidance; and for each terminal and pattern in it, its description and a grammar of it alone.

    Raises:
        UnspoolError: if it uses what is not supported.
    """
    lexemes = list(_lexemes(grammar))
    for lexeme in lexemes:
        if lexeme.kind == "special":
            raise UnspoolError(
                f"the grammar contains the special token {lexeme.text}, which is not text; leave it out: a complete "
                "text ends by itself"
            )
    plain = [lexeme for lexeme in lexemes if lexeme.kind != "space"]
    rules = _rules(plain)
    for name, body in rules.items():
        count = sum(lexeme.text == "|" for lexeme in body) + 1
        if count > _ALTERNATIVES:
            raise UnspoolError(f"the rule {name} has {count} alternatives, more than {_ALTERNATIVES}; use choices")
    check_lengths(rules)
    moved = "".join("_start" if (x.kind, x.text) == ("name", "start") else x.text for x in lexemes)
    alone = [(f"the terminal {name}", f"start: {name}\n{moved}") for name in rules if name.isupper()]
    patterns = sorted({lexeme.text for lexeme in plain if lexeme.kind == "text" and lexeme.text.startswith("/")})
    alone += [(f"the pattern {text}", f"start: {text}") for text in patterns]
    return "".join(lexeme.text for lexeme in lexemes), alone


def _lexemes(grammar: str) -> Iterator[Lexeme]:
    at = 0
    while at < len(grammar):
        match = _LEXEME.match(grammar, at)
        assert match is not None and match.lastgroup is not None
        at, text = match.end(), match[0]
        if text == "%llguidance":
            raise UnspoolError("%llguidance changes how a grammar is read; leave it out")
        if text in ("%json", "%regex", "%lark"):
            inside, at = (_nested if text == "%lark" else _json)(grammar, at, text)
            yield Lexeme("text", f"{text} {inside}")
        else:
            yield Lexeme(match.lastgroup, text)


def _json(grammar: str, at: int, directive: str) -> tuple[str, int]:
    at += len(grammar[at:]) - len(grammar[at:].lstrip())
    try:
        value, end = json.JSONDecoder(object_pairs_hook=unique).raw_decode(grammar, at)
    except (ValueError, RecursionError) as error:
        raise UnspoolError(f"what follows {directive} in the grammar is not JSON: {error}") from error
    if directive == "%json":
        if not isinstance(value, dict):
            raise UnspoolError('%json must be followed by a JSON Schema, for example {"type": "object"}')
        ready = prepared(value)
        value = ready.schema
        if ready.scarce or any(_is_open(below) for below in schemas(value)):
            raise UnspoolError(
                "a JSON Schema in a grammar must name all properties, or a name could occur twice; give every schema a "
                "type, and objects additionalProperties: false, or use json_schema"
            )
        value["x-guidance"] = JSON_STYLE
    return json.dumps(value), end


def _is_open(schema: dict[str, Any]) -> bool:
    if {"$ref", "anyOf", "oneOf", "allOf", "enum", "const"} & schema.keys():
        return False  # what they refer to is checked by itself
    kinds = types(schema)
    free = "object" in kinds and schema.get("additionalProperties") is not False
    # A list of anything may contain objects too.
    return free or (
        "array" in kinds and not isinstance(schema.get("items"), dict | list) and schema.get("items") is not False
    )


def _nested(grammar: str, at: int, directive: str) -> tuple[str, int]:
    begin = grammar.index("{", at) if "{" in grammar[at:] else len(grammar)
    depth, end = 0, begin
    for lexeme in _LEXEME.finditer(grammar, begin):
        depth += {"{": 1, "}": -1}.get(lexeme[0], 0)
        end = lexeme.end()
        if not depth:
            break
    if depth or begin == len(grammar):
        raise UnspoolError(f"what follows {directive} in the grammar has no end; close its brace")
    return "{" + prepared_lark(grammar[begin + 1 : end - 1])[0] + "}", end


def _rules(lexemes: list[Lexeme]) -> dict[str, list[Lexeme]]:
    """The bodies of all rules and terminals; also checks the settings of their heads."""
    rules: dict[str, list[Lexeme]] = {}
    body: list[Lexeme] = []
    at = 0
    while at < len(lexemes):
        lexeme = lexemes[at]
        if lexeme.kind == "name" and (behind := _behind_head(lexemes, at + 1)):
            body = rules[lexeme.text.lstrip("?!")] = []
            at = behind
        else:
            if lexeme.kind == "directive":
                body = []  # not of a rule
            body.append(lexeme)
            at += 1
    return rules


def _behind_head(lexemes: list[Lexeme], at: int) -> int:
    """The position after the colon of a rule's head whose name ends at ``at``; 0 if it is not a head."""
    begin = at
    while at < len(lexemes) and lexemes[at].text == ".":
        at += 2  # a priority
    if at < len(lexemes) and lexemes[at].text == "[":
        while at < len(lexemes) and lexemes[at].text != "]":
            at += 1
        at += 1
    if at >= len(lexemes) or lexemes[at].text != ":":
        return 0
    for lexeme in lexemes[begin:at]:
        if lexeme.text in _SETTINGS:
            raise UnspoolError(
                f"the grammar sets {lexeme.text} for {lexemes[begin - 1].text}, which is not supported; leave it out"
            )
    return at + 1
