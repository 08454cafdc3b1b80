"""Checks of a search for a span of a passage, through the verb of its name."""

from __future__ import annotations

from typing import Any

from unspool.conformance.check import Row, require
from unspool.conformance.program import Counted, by_name, counts, since, verb_of
from unspool.conformance.small_model import load
from unspool.decoding.model import Model

PASSAGES = ("ab=1, x(a)\ncount index", "x=(1,) in count")
LONGEST = 3


def found(row: Row, model: Model, which: int) -> Counted:
    """The spans of a passage."""
    before = counts(model)
    # The penalty favours long spans, so that the limit is met.
    limits: dict[str, Any] = {"max_span_tokens": LONGEST, "length_penalty": 2.0}
    spans = verb_of(row)(model, "ab"[which], PASSAGES[which], top_k=9, pass_nodes=5, **limits)
    for span in spans.spans:
        there = PASSAGES[which][span.start : span.end] == span.text
        require(there, f"{span.text!r} does not stand at {span.start} of the passage")
    longest = max(len(span.token_ids) for span in spans.spans)
    require(longest == LONGEST, f"the longest span has {longest} tokens where {LONGEST} are allowed")
    prompt = spans.prompt_token_ids
    return Counted((spans.spans, prompt), (spans.passes, spans.nodes, len(prompt) - 1), since(model, before))


def spans_stand_in_the_passage(row: Row) -> None:
    """Spans are in the passage and within the length limit, and equal calls give equal spans."""
    first, second = (found(row, load(), which).value for which in (0, 1))
    model = load()
    again = [found(row, model, which).value for which in (0, 1, 1, 0)]
    require(again == [first, second, second, first], "the same call gave other spans after another request")


def figures_are_those_that_the_model_counts(row: Row) -> None:
    """Passes and tokens equal the model's counts."""
    for which in (0, 1):
        found(row, load(), which).check()


CHECKS = (by_name, spans_stand_in_the_passage, figures_are_those_that_the_model_counts)
