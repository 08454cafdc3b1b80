"""Prompt lookup against a search through the whole text and against transformers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unspool.engine.contracts import Context, Drafter
from unspool.errors import UnspoolError
from unspool.methods.drafters.prompt_lookup import PromptLookup, PromptLookupOptions

TEXTS = st.lists(st.integers(0, 3), min_size=1, max_size=40)


def search(tokens: list[int], max_size: int, length: int) -> tuple[int, list[int]]:
    """(size of the n-gram, draft) by trying every window of the text."""
    for size in range(min(max_size, len(tokens) - 1), 0, -1):
        for begin in range(len(tokens) - size):
            if tokens[begin : begin + size] == tokens[-size:]:
                return size, tokens[begin + size : begin + size + length]
    return 0, []


@given(TEXTS, st.integers(1, 40), st.integers(1, 4), st.integers(1, 6), st.integers(1, 9))
def test_drafts_what_a_search_finds(
    tokens: list[int], prompt_length: int, max_size: int, length: int, budget: int
) -> None:
    """The text grows by uneven steps, as it does when drafts are accepted."""
    drafter: Drafter = PromptLookup(PromptLookupOptions(length, max_size))
    text = tokens[:prompt_length]
    context = Context(text, len(text), seed=0, temperature=0.0)
    drafter.start(context)
    rest = tokens[prompt_length:]
    while True:
        tree = drafter.propose(context, budget)
        size, draft = search(text, max_size, min(length, budget - 1))
        assert tree.tokens == (text[-1], *draft)
        assert tree.is_chain
        assert tree.buckets == (0,) + (size,) * len(draft)
        if not rest:
            return
        step = 1 + len(text) % 3
        text.extend(rest[:step])
        rest = rest[step:]


@pytest.mark.parametrize(
    "tokens",
    [
        [5, 6, 7, 5, 6, 8, 9, 5, 6],  # two continuations: the earlier one
        [1, 2, 3, 9, 2, 3, 4, 1, 2, 3],
        [7, 7],  # overlaps itself
        [7, 7, 7, 7],
        [1, 2, 3, 4],  # nothing to find
        [3],
        [8, 1, 2, 5, 1, 8, 2],  # only a single token occurred before
    ],
)
@pytest.mark.parametrize("max_size", [1, 2, 3])
def test_equals_transformers(tokens: list[int], max_size: int) -> None:
    torch = pytest.importorskip("torch")
    from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

    reference = PromptLookupCandidateGenerator(num_output_tokens=4, max_matching_ngram_size=max_size, max_length=1000)
    candidates, _ = reference.get_candidates(torch.tensor([tokens]))
    drafter = PromptLookup(PromptLookupOptions(num_assistant_tokens=4, max_matching_ngram_size=max_size))
    context = Context(tokens, len(tokens), seed=0, temperature=0.0)
    drafter.start(context)
    assert list(drafter.propose(context, 81).tokens[1:]) == candidates[0, len(tokens) :].tolist()


def test_a_new_request_forgets_the_last_one() -> None:
    drafter = PromptLookup()
    drafter.start(Context([1, 2, 3, 1], 4, seed=0, temperature=0.0))
    other = Context([9, 1], 2, seed=0, temperature=0.0)
    drafter.start(other)
    assert drafter.propose(other, 8).tokens == (1,)


def test_zero_is_refused() -> None:
    with pytest.raises(UnspoolError, match="num_assistant_tokens must be at least 1"):
        PromptLookupOptions(num_assistant_tokens=0)
    with pytest.raises(UnspoolError, match="max_matching_ngram_size must be at least 1"):
        PromptLookupOptions(max_matching_ngram_size=0)
