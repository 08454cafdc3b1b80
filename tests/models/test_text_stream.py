"""Text made step by step against the text of all ids, and stop strings, for any ids at all."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, normalizers

from tests.models import tokenizers_made as made
from unspool.models.text_stream import Forms
from unspool.models.tokenizer import Settings, StopStrings, Tokenizer

TOKENIZERS = {name: Tokenizer.of(make()) for name, make in made.FORMS.items()}
TOKENIZERS["cleaned up"] = Tokenizer.of(made.word_piece(), Settings(clean_up=True))
TOKENIZERS["cleaned up, word level"] = Tokenizer.of(made.word_level(), Settings(clean_up=True))
CTC = made.word_level()
CTC.decoder = decoders.CTC(pad_token="the")
TOKENIZERS["CTC"] = Tokenizer.of(CTC)
EVERY = pytest.mark.parametrize("name", TOKENIZERS)


def ids_of(tokenizer: Tokenizer, most: int = 14) -> st.SearchStrategy[list[int]]:
    """Any ids: bytes and special tokens more often than chance has it, and some that are no token."""
    every = sorted(tokenizer.vocabulary.values())
    special = [i for i in every if tokenizer.is_special(i)]
    text = tokenizer.encode("é 日本 😀 the sea is ▁ , isn't it ?", False)
    one = st.one_of(st.sampled_from(every), st.sampled_from(text), st.sampled_from(special), st.just(every[-1] + 7))
    some = st.sampled_from([text[:n] for n in range(1, len(text))])
    return st.lists(st.one_of(one.map(lambda i: [i]), some), max_size=most).map(lambda parts: [*chain(*parts)])


@EVERY
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_pieces_add_up_to_the_text_behind_any_prompt(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    prompt, ids = data.draw(ids_of(tokenizer, 4)), data.draw(ids_of(tokenizer))
    assert tokenizer.text(ids) == tokenizer.decode(ids)
    assert "".join(tokenizer.pieces(ids)) == tokenizer.decode(ids)
    for exact in (False, True):
        context = tokenizer.context(prompt, exact)
        stream = tokenizer.stream(context)
        shown = ""
        for n, token in enumerate(ids, 1):
            shown += stream.push(token)
            assert shown + stream.rest() == tokenizer.text(ids[:n], context)
        assert shown + stream.rest() == tokenizer.text(ids, context)


@EVERY
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_end_of_a_prompt_stands_for_all_of_it(name: str, data: st.DataObject) -> None:
    """``context`` is short; what is behind it is written as behind the whole prompt."""
    tokenizer = TOKENIZERS[name]
    prompt = [i for i in data.draw(ids_of(tokenizer, 6)) if not tokenizer.is_special(i)]
    ids = [i for i in data.draw(ids_of(tokenizer)) if not tokenizer.is_special(i)]
    before, whole = tokenizer.decode_raw(prompt, True), tokenizer.decode_raw([*prompt, *ids], True)
    if whole.startswith(before) and not tokenizer.settings.clean_up:
        assert tokenizer.text(ids, tokenizer.context(prompt)) == whole[len(before) :]


@EVERY
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_stop_string_ends_the_text_where_it_stands(name: str, data: st.DataObject) -> None:
    """Against the same search in the whole raw text; what a stream shows is never taken back."""
    tokenizer = TOKENIZERS[name]
    ids = data.draw(ids_of(tokenizer))
    raw = tokenizer.text(ids, skip_special_tokens=False)
    start = data.draw(st.integers(0, max(0, len(raw) - 1)))
    strings = [raw[start : start + data.draw(st.integers(1, 12))] or "x", "ea<|end|>", " is"]
    watch = StopStrings(tokenizer, strings)
    ended, shown = None, ""
    for n, token in enumerate(ids, 1):
        shown = watch.text[: watch.safe] if n > 1 else ""
        so_far = tokenizer.text(ids[:n], skip_special_tokens=False)
        if watch(token):
            ended = n
            assert any(s in so_far for s in strings)
            break
        assert not any(s in so_far for s in strings)
        assert watch.text == tokenizer.text(ids[:n])
    if ended is None:
        assert watch.text == tokenizer.text(ids)
        return
    assert watch.text.startswith(shown)
    text = tokenizer.text(ids[:ended])
    if "\ufffd" not in text:
        assert text.startswith(watch.text)
    at = min(so_far.find(s) for s in strings if s in so_far)
    if not any(map(tokenizer.is_special, ids[:ended])):
        assert watch.text == so_far[:at]


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("Fine.\n<|turn|>user\nAnd then?", "<|turn|>", "Fine.\n"),
        ("Fine.\n<|turn|>user\nAnd then?", "<|turn|>us", "Fine.\n"),
        ("Fine.\n<|turn|>user\nAnd then?", ".\n<|turn|>", "Fine"),
        ("Fine.\n<|turn|>user\nAnd then?", "urn|>user\nA", "Fine.\n"),
        ("Fine.<|end|> the sea<|end|> is", "sea<|end|> is", "Fine. the "),
        ("<|turn|>", "<|turn|>", ""),
        ("My Nice house END more", "END", "My Nice house "),
        (" the sea", " the", ""),
        ("é日本 is", "本", "é日"),
        ("é日本 is", ["is", "日"], "é"),
    ],
)
@pytest.mark.parametrize("name", ["byte level", "byte fallback, no strip"])
def test_stop_strings_are_looked_for_in_the_raw_text(
    name: str, text: str, stop: str | list[str], expected: str
) -> None:
    tokenizer = TOKENIZERS[name]
    watch = StopStrings(tokenizer, stop)
    assert any(watch(token) for token in tokenizer.encode(text, False)) and watch.text == expected


def test_a_byte_that_is_a_stop_string_ends_the_text_at_once() -> None:
    """As the line break of Llama 2, which is no piece: nothing has to come behind it."""
    tokenizer = TOKENIZERS["byte fallback"]
    ids = [*tokenizer.encode("the sea", False), tokenizer.vocabulary["<0x0A>"]]
    watch = StopStrings(tokenizer, "\n")
    assert [watch(i) for i in ids] == [None] * (len(ids) - 1) + ["stop_string"]
    assert watch.text == "the sea"


@pytest.mark.parametrize("name", ["byte fallback", "unigram", "word piece", "word level", "byte level"])
def test_an_output_is_the_text_that_stands_behind_its_prompt(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    whole = tokenizer.encode("the sea is blue", False)
    for n in range(1, len(whole)):
        prompt, ids = whole[:n], whole[n:]
        assert tokenizer.decode(prompt) + tokenizer.text(ids, tokenizer.context(prompt)) == tokenizer.decode(whole)


def test_a_text_begins_anew_behind_a_special_token_unless_it_must_be_exact() -> None:
    tokenizer = TOKENIZERS["byte fallback"]
    prompt = tokenizer.encode("the sea<|turn|>", False)
    yes = [tokenizer.vocabulary["▁yes"]]
    assert tokenizer.text(yes, tokenizer.context(prompt)) == "yes" == tokenizer.decode(yes)
    assert tokenizer.text(yes, tokenizer.context(prompt, exact=True)) == " yes"
    assert tokenizer.text(yes, tokenizer.context(tokenizer.encode("the sea<|turn|>is", False))) == " yes"


def test_a_prompt_that_ends_within_a_character() -> None:
    for name, first in (("byte level", "Ã"), ("byte fallback", "<0xC3>")):
        tokenizer = TOKENIZERS[name]
        second = {"byte level": "©", "byte fallback": "<0xA9>"}[name]
        prompt = [*tokenizer.encode("the", False), tokenizer.vocabulary[first]]
        assert tokenizer.text([tokenizer.vocabulary[second]], tokenizer.context(prompt)) == "é"


def test_windows_stay_small() -> None:
    """A token costs the decoding of a few, however long the text is."""
    for name in ("byte level", "byte fallback", "unigram", "word piece", "word level", "suffixed"):
        tokenizer = TOKENIZERS[name]
        stream = tokenizer.stream()
        for token in tokenizer.encode("the sea is blue, 日本 " * 40, False):
            stream.push(token)
            assert len(stream._window) < 40


def test_decoders_that_may_change_what_stands_before() -> None:
    assert Forms(None).stepwise
    assert not TOKENIZERS["CTC"].forms.stepwise
    fast = Fast(models.WordLevel({"a": 0}, unk_token="a"))
    for steps, expected in (
        ([decoders.Fuse(), decoders.Replace("aa", "b")], False),
        ([decoders.Fuse(), decoders.Strip(" ", 0, 1)], False),
        ([decoders.Replace("aa", "b"), decoders.Fuse()], True),
    ):
        fast.decoder = decoders.Sequence(steps)
        assert Tokenizer.of(fast).forms.stepwise is expected
    fast = made.byte_fallback()
    fast.normalizer = normalizers.NFC()
    assert Tokenizer.of(fast).forms.bytes


def test_a_stop_string_in_the_token_that_completes_a_character() -> None:
    """The first token alone is no character; with the second it is one, and the stop string follows it."""
    fast = Fast(models.BPE({"Ã": 0, "©": 1, "a": 2, "©a": 3, "b": 4}, [("©", "a")]))
    fast.decoder = decoders.ByteLevel()
    for before, text in (([], "é"), ([4], "bé"), ([0], "\ufffdé"), ([4, 0, 1], "béé")):
        stop = StopStrings(Tokenizer.of(fast), "a")
        assert [stop(token) for token in (*before, 0)] == [None] * (len(before) + 1)
        assert stop(3) == "stop_string" and stop.text == text
