"""Checks of a search, through the public interface on a model that counts its calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.conformance.check import Row, options_of, require
from unspool.conformance.small_model import EOS, CountedModel, load
from unspool.decoding.model import Model
from unspool.decoding.search import SearchResult
from unspool.engine.search import PassEvent, SearchEvent


def search(model: Model, row: Row, which: int = 0, **options: Any) -> SearchResult:
    """What is found after a prompt of the row's case."""
    spec = methods.choose(row.name, row.kind, options_of(row)).spec
    reward = row.case.reward if row.needs.reward else None
    return model.search(row.case.prompts[which], method=spec, reward=reward, **{"max_new_tokens": 10, **options})


def value(model: Model, row: Row, which: int) -> object:
    """All that a call gives, but for times."""
    found = search(model, row, which)
    return found.candidates, found.statistics.passes, found.statistics.evaluated_tokens, found.statistics.counts


def calls_do_not_depend_on_one_another(row: Row) -> None:
    """The same call gives the same texts after any earlier searches."""
    first, second = (value(load(), row, which) for which in (0, 1))
    require(first != second, "two different prompts gave the same texts")
    model = load()
    require([value(model, row, which) for which in (0, 1, 1, 0)] == [first, second, second, first], "calls differ")


def figures_are_those_that_the_model_counts(row: Row) -> None:
    """Passes, evaluated tokens and log-probabilities equal the model's own, scored alone or together."""
    for widths in ((), (1, 2, 4, 8, 16, 32)):
        for seed in range(10):
            for limit in (1, 2, 16):
                _figures(row, widths, seed, limit)


def _figures(row: Row, widths: tuple[int, ...], seed: int, limit: int) -> None:
    language_model, events = CountedModel(seed, widths), list[SearchEvent]()
    found = search(load(0, language_model), row, max_new_tokens=limit, on_event=events.append)
    figures, prompt = found.statistics, found.prompt_token_ids
    evaluated = language_model.nodes + language_model.filled - (len(prompt) - 1)
    where, counted = f"model {seed}, at most {limit} tokens", (language_model.passes, evaluated)
    require(
        (figures.passes, figures.evaluated_tokens) == counted, f"{where}: the model counts {counted} passes and tokens"
    )
    passes = [event for event in events if isinstance(event, PassEvent)]
    told = (len(passes), sum(event.nodes for event in passes))
    require(told == counted, f"{where}: its events are of {told} passes and tokens, the model counts {counted}")
    require(0 < figures.tokens == len(found.token_ids) <= figures.evaluated_tokens, f"{where}: {figures.tokens} tokens")


def candidates_are_whole_texts_best_first(row: Row) -> None:
    """Candidates differ, best first, each with its log-probability and ending at its end token or the length limit."""
    reasons = set()
    for seed in range(10):
        for limit in (1, 2, 16):
            model = load(0, CountedModel(seed))
            found = search(model, row, max_new_tokens=limit)
            for candidate in found.candidates:
                ids, where = candidate.token_ids, f"model {seed}, {candidate.text!r}"
                ended = ids[-1] == EOS
                reasons.add(candidate.finish_reason)
                require(candidate.finish_reason == ("stop" if ended else "length"), f"{where}: a wrong reason")
                require(len(ids) == limit or (ended and len(ids) < limit), f"{where}: {len(ids)} of {limit} tokens")
                require(EOS not in ids[:-1], f"{where}: the text continues after its end token")
                right = chance(model.language_model, found.prompt_token_ids, ids)  # type: ignore[arg-type]
                near = math.isclose(candidate.logprob, right, rel_tol=0, abs_tol=1e-9)
                require(near, f"{where}: its log-probability is {right:.6g}, not {candidate.logprob:.6g}")
            scores = [candidate.score for candidate in found.candidates]
            require(scores == sorted(scores, reverse=True), "candidates are not in the order of their scores")
            texts = {tuple(candidate.token_ids) for candidate in found.candidates}
            require(len(texts) == len(scores), "a text comes twice")
    require(reasons == {"stop", "length"}, f"of 30 searches all texts end with {' and '.join(reasons)}")


def chance(model: ToyModel, prompt: Sequence[int], ids: Sequence[int]) -> float:
    """Log-probability, one row of the table a token."""
    text = [*prompt, *ids]
    return sum(math.log(model.probabilities(text[:i])[text[i]]) for i in range(len(prompt), len(text)))


CHECKS = (
    calls_do_not_depend_on_one_another,
    figures_are_those_that_the_model_counts,
    candidates_are_whole_texts_best_first,
)
