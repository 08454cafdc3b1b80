"""Patterns against Python's own ``re`` over random patterns and texts."""

from __future__ import annotations

import random
import re
import warnings

import pytest
from llguidance import LLMatcher

from unspool.errors import UnspoolError
from unspool.methods.constraints.grammar.characters import one_of
from unspool.methods.constraints.grammar.options import byte_vocabulary
from unspool.methods.constraints.grammar.patterns import found, found_names, names, python_of, runs_on, whole

ATOMS = [
    "a",
    "b",
    "k",
    ".",
    r"\d",
    r"\w",
    r"\s",
    r"\W",
    "[^a]",
    "[a-c]",
    "[[:alpha:]]",
    "[a&&b]",
    "[]a]",
    "[a-]",
    r"\x41",
]
ATOMS += [r"\.", "/", '"', "&", "~", "é", r"[\w.-]", "(?i:K)", "(?s:.)", "(?:)", r"\u0661", r"[^\d\s]", "-", "#", " "]
CHARS = [*list('abkKKA.1١_ \n\r\u2028\xa0é~&/"#-:]^$'), "😀", "\x00", "\x85"]


def pattern(rng, depth=3):
    if not depth or rng.random() < 0.3:
        return rng.choice(ATOMS)
    kind = rng.randrange(4)
    if kind == 0:
        return "(" + "|".join(pattern(rng, depth - 1) for _ in range(rng.randrange(1, 4))) + ")"
    if kind == 1:
        return f"(?:{pattern(rng, depth - 1)}){rng.choice(['*', '+', '?', '{2}', '{1,2}', '{,2}', '*?', '{0}'])}"
    return "".join(pattern(rng, depth - 1) for _ in range(rng.randrange(1, 4)))


def anchored(rng):
    made = pattern(rng)
    return rng.choice(["^{}", "{}$", "^{}$", "^{}|b$", r"\A{}\Z", "(^|a){}", "{}"]).format(made)


def matcher(rust):
    made = LLMatcher(byte_vocabulary(), LLMatcher.grammar_from_regex(rust), log_level=0)
    assert not made.is_error(), made.get_error()

    def matches(text):
        made.reset()
        data = list(text.encode())
        return made.validate_tokens(data) == len(data) and made.consume_tokens(data) and made.is_accepting()

    return matches


def matches(rust, text):
    return matcher(rust)(text)


def judged(written, judge, seeds, texts=25):
    positive = 0
    for seed in seeds:
        rng = random.Random(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = anchored(rng)
            try:
                rust = written(given)
            except UnspoolError as error:
                assert "anchor" in str(error), (given, str(error))
                continue
            takes = matcher(rust)
            for _ in range(texts):
                text = "".join(rng.choices(CHARS, k=rng.randrange(5)))
                took, right = takes(text), judge(given, text)
                assert right is None or took == right, (given, text, took)
                positive += took
    return positive


def test_a_regex_is_pythons_fullmatch():
    assert judged(whole, lambda rx, text: bool(re.fullmatch(rx, text)), range(120)) > 100


def test_names_are_those_that_python_finds():
    assert judged(lambda rx: found_names(rx)[1:-1], lambda rx, text: bool(re.search(rx, text)), range(200, 260)) > 100


def test_texts_of_a_schema_are_found_by_python_and_by_ecma():
    """In ASCII and in Unicode alike, ``$`` at the very end: where they differ a text may be missing."""

    def both(rx, text):
        ecma = re.sub(r"(?<!\\)\$$", r"\\Z", rx)
        if not re.search(rx, text) or not re.search(ecma, text, re.ASCII):
            return False
        return True if text.isascii() and not set(text) & set("\r\n") else None

    assert judged(lambda rx: found(rx)[1:-1], both, range(300, 360)) > 100


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("a(?=b)b", "look-around"),
        ("(?<!x)a", "look-around"),
        (r"(a)\1", "back-references"),
        (r"\bfoo", "word boundaries"),
        ("(?m)^a$", "anchors of lines"),
        ("a$b", "anchor in the middle"),
        ("(^a)*", "repeated anchor"),
        ("[0-9", "unterminated character set"),
        (r"ab\R", "bad escape"),
    ],
)
def test_what_a_grammar_has_no_word_for_is_named(given, what):
    for written in (whole, found, found_names):
        with pytest.raises(UnspoolError, match=what):
            written(given)


def test_unicode_properties_are_llguidances():
    assert matches(whole(r"\p{Lu}[\p{L}x]*"), "Éé") and not matches(whole(r"\p{Lu}"), "é")


def test_few_names_are_listed():
    assert names("^(get|put)$", 9) == {"get", "put"}
    assert names("^a?b{1,2}$|^c$", 9) == {"ab", "abb", "b", "bb", "c"}
    assert len(names("^[0-9]{2}$", 100)) == 100
    for many in ("^[0-9]{2}$", "^x-", "a$", "^a*$", "^[^a]$"):
        assert names(many, 99) is None


def test_one_of_matches_each_and_nothing_else():
    texts = ["a.b", "a", "é😀", "\n", "(?i)x", "a|b", "<|im_end|>"]
    rust = one_of(texts)
    assert all(matches(rust, text) for text in texts)
    assert not any(matches(rust, text) for text in ("axb", "b", "x", "X", ""))


def test_patterns_whose_names_never_run_out():
    for endless in ("^x-", "^[k-m]+$", "^(?:a|bc)*$", "", "^a+$|^b*$", "^(?:a|b)c+$"):
        assert runs_on(endless), endless
    for scarce in ("^[a-z]{1,8}$", "^a$", "^(?:id|x.+)$", "^a+b?$", "^a(?:b|c+)$|d"):
        assert not runs_on(scarce), scarce


@pytest.mark.parametrize(
    ("ecma", "same"),
    [
        (r"^[\w-\.]+@([\w-]+\.)+[\w-]{2,4}$", r"^[\w\-\.]+@([\w-]+\.)+[\w-]{2,4}$"),
        (r"^(?<year>\d{4})\(?<x$", r"^(?P<year>\d{4})\(?<x$"),
        (r"^[a[]\w-x[a-\d]$", r"^[a[]\w-x[a\-\d]$"),
        (r"^[]\d-x]$", r"^[]\d\-x]$"),
    ],
)
def test_what_only_ecma_reads_is_read_as_there(ecma, same):
    with pytest.raises(re.error):
        re.compile(ecma)
    assert (found(ecma), found_names(ecma)) == (found(same), found_names(same))


def test_what_python_reads_stays_its_own():
    for pattern in (r"(?<=a)[(?<a]", r"[\w-][-\d]\[\w-x]", r"\\(?P<a>[^]a-])", "[[]-a"):
        assert re.compile(python_of(pattern)).pattern.replace(r"\-", "-") == pattern
