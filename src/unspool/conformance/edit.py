"""Checks of an edit of a cached prompt, through the verb of its name."""

from __future__ import annotations

from dataclasses import replace

from unspool import methods
from unspool.conformance.check import Row, require
from unspool.conformance.program import Counted, by_name, counts, since, verb_of
from unspool.conformance.small_model import CountedModel, load
from unspool.decoding.model import Model
from unspool.errors import UnsupportedError

TEXTS = ("a=(1,)\nx=a\nab=x", "count=1\nx=count")


def edited(row: Row, model: Model, which: int) -> Counted:
    """A text with its first character replaced, and what follows it."""
    text = verb_of(row)(model, TEXTS[which])
    before = counts(model)
    done = text.replace(0, 1, "ab")
    encoded = since(model, before)[2]
    before = counts(model)
    result = text.generate(method=methods.PLAIN, max_new_tokens=8, temperature=0.8, seed=2)
    passes = since(model, before)[0]
    again = text.generate(method=methods.PLAIN, max_new_tokens=8, temperature=0.8, seed=2)
    kept = again.token_ids == result.token_ids and not since(model, before)[2]
    require(kept, "the cache of the text was lost after the first output")
    ended = result.token_ids[-1] in model.eos_token_ids
    require(result.finish_reason == ("stop" if ended else "length"), f"it ended with {result.finish_reason!r}")
    require(ended or len(result.token_ids) == 8, "it ended before its length limit")
    require(not text.exact and not result.exact, "entries were moved, and it calls itself exact")
    value = (text.text, text.tokens, replace(done, ms=0.0), result.token_ids, result.text)
    text.close()
    return Counted(value, (done.encoded, result.statistics.passes), (encoded, passes))


def edits_do_not_depend_on_one_another(row: Row) -> None:
    """The same edit gives the same text and output after any earlier requests."""
    first, second = (edited(row, load(), which).value for which in (0, 1))
    model = load()
    again = [edited(row, model, which).value for which in (0, 1, 1, 0)]
    require(again == [first, second, second, first], "the same edit gave another text after another request")


def figures_are_those_that_the_model_counts(row: Row) -> None:
    """The reported encoded tokens and passes equal the model's counts."""
    for which in (0, 1):
        edited(row, load(), which).check()


def a_model_without_the_ability_is_refused_before_any_work(row: Row) -> None:
    """A model without an ability that the method needs is rejected before any pass."""
    language_model = CountedModel()
    language_model.abilities = frozenset()
    if not row.needs.abilities:
        return
    try:
        edited(row, load(0, language_model), 0)
    except UnsupportedError as error:
        require("does not offer" in str(error), str(error))
    else:
        require(False, "a model without the ability was not refused")
    require(not language_model.passes and not language_model.filled, "it was refused after some work")


CHECKS = (
    by_name,
    edits_do_not_depend_on_one_another,
    figures_are_those_that_the_model_counts,
    a_model_without_the_ability_is_refused_before_any_work,
)
