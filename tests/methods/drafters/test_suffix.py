"""The suffix automaton against a search through the whole text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.engine.contracts import Context, Drafter
from unspool.engine.suffix_automaton import SuffixAutomaton
from unspool.errors import UnspoolError
from unspool.methods.drafters.suffix import MAX_BUCKET, Suffix, SuffixOptions

TEXTS = st.sampled_from([0, 1, 2, 5]).flatmap(lambda most: st.lists(st.integers(0, most), min_size=1, max_size=30))


def search(tokens: list[int]) -> tuple[int, int]:
    """(length, most recent earlier end) of the longest suffix that occurred before."""
    for length in range(len(tokens) - 1, 0, -1):
        for end in range(len(tokens) - 1, length - 1, -1):
            if tokens[end - length : end] == tokens[-length:]:
                return length, end
    return 0, 0


@given(TEXTS)
def test_longest_earlier_suffix_after_every_token(tokens: list[int]) -> None:
    automaton = SuffixAutomaton()
    assert automaton.match() == (0, 0)
    for size, token in enumerate(tokens, 1):
        automaton.extend(token)
        assert len(automaton) == size
        assert automaton.match() == search(tokens[:size])


@given(st.integers(1, 4), st.integers(40, 120), st.lists(st.integers(0, 4), max_size=20))
def test_text_of_short_period_still_finds_the_longest(period: int, length: int, tail: list[int]) -> None:
    """More suffixes repeat than are marked: the length stays exact and the place stays an occurrence."""
    tokens = [i % period for i in range(length)] + tail
    automaton = SuffixAutomaton()
    for token in tokens:
        automaton.extend(token)
    matched, end = automaton.match()
    assert matched == search(tokens)[0]
    assert end < len(tokens)
    assert tokens[end - matched : end] == tokens[len(tokens) - matched :]


@given(TEXTS, st.integers(1, 30), st.integers(1, 6), st.integers(1, 9))
def test_drafts_what_followed(tokens: list[int], prompt_length: int, length: int, budget: int) -> None:
    """The text grows by uneven steps, as it does when drafts are accepted."""
    drafter: Drafter = Suffix(SuffixOptions(length))
    text = tokens[:prompt_length]
    context = Context(text, len(text), seed=0, temperature=0.0)
    drafter.start(context)
    rest = tokens[prompt_length:]
    while True:
        tree = drafter.propose(context, budget)
        matched, end = search(text)
        drafted = list(text)
        for i in range(min(length, budget - 1) if matched else 0):
            drafted.append(drafted[end + i])  # the draft itself is text that can be copied
        assert tree.tokens == (text[-1], *drafted[len(text) :])
        assert tree.is_chain
        assert tree.buckets[1:] == tuple(min(matched + i, MAX_BUCKET) for i in range(len(tree) - 1))
        if not rest:
            return
        step = 1 + len(text) % 3
        text.extend(rest[:step])
        rest = rest[step:]


def test_proposing_again_changes_nothing() -> None:
    """Only committed tokens enter the automaton, not drafts."""
    drafter = Suffix()
    context = Context([1, 2, 3, 1, 2], 5, seed=0, temperature=0.0)
    drafter.start(context)
    assert drafter.propose(context, 5).tokens == drafter.propose(context, 5).tokens == (2, 3, 1, 2, 3)


def test_a_new_request_forgets_the_last_one() -> None:
    drafter = Suffix()
    drafter.start(Context([1, 2, 3, 1], 4, seed=0, temperature=0.0))
    other = Context([9, 1], 2, seed=0, temperature=0.0)
    drafter.start(other)
    assert drafter.propose(other, 8).tokens == (1,)


def test_zero_is_refused() -> None:
    with pytest.raises(UnspoolError, match="num_assistant_tokens must be at least 1"):
        SuffixOptions(num_assistant_tokens=0)
