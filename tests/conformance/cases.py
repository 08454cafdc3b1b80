"""What each registered shaper, constraint, sampler, search and program is run on.

A new row needs no entry here unless the small model's own prompts and the row's ``trial`` options show nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import pytest

from unspool import methods
from unspool.decoding.model import Model
from unspool.engine.method import CONSTRAINT, EDIT, SAMPLER, SEARCH, SHAPER, SPAN
from unspool.methods import Kind, Row
from unspool.methods.constraints.monitor.jedi import JediAnalyser

KINDS: tuple[Kind[Any], ...] = (SHAPER, CONSTRAINT, SAMPLER, SEARCH, SPAN, EDIT)


@dataclass(frozen=True)
class Outcome:
    """What a program gave.

    Attributes:
        value: all of it that does not depend on time; two equal calls give two equal values.
        claimed: figures that it states of its work.
        counted: the same figures, as the model counted them.
    """

    value: object
    claimed: tuple[int, ...]
    counted: tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """How a row is called.

    Attributes:
        options: its own; with them it must do something to the texts behind ``prompts``.
        prompts: of two different requests.
        complete: of a constraint or sampler: whether an output behind the first prompt may end there; None where the
            case does not say.
        reward: of a search that takes one.
        run: calls a program for the first (0) or second (1) request.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    prompts: tuple[str, str] = ("a=(1,)\n", "x=ab\nx=ab")
    complete: Callable[[str], bool | None] = lambda output: None
    reward: Callable[[str], float] | None = None
    run: Callable[[Model, int], Outcome] | None = None


REGEX = r"(ab|x=)(co|a|in)*(1|,a){0,3}\n?"
NAMES = ("count", "index")  # what a tuple has


def _in_regex(output: str) -> bool:
    return re.fullmatch(REGEX, output) is not None


def _name_is_whole(output: str) -> bool | None:
    """Behind ``a.``, where ``a`` is a tuple."""
    if "." in output:
        return None
    return output in NAMES if re.fullmatch(r"\w*", output) else True


def _extract(model: Model, which: int) -> Outcome:

    before = _counts(model)
    passage = ("ab=1, x(a)\ncount index", "x=(1,) in count")[which]
    # The penalty favours long spans, so that the limit is met.
    found = model.extract("ab"[which], passage, top_k=9, max_span_tokens=3, length_penalty=2.0, pass_nodes=5)
    assert all(passage[span.start : span.end] == span.text for span in found.spans)
    assert max(len(span.token_ids) for span in found.spans) == 3, "the limit of tokens"
    prompt = found.prompt_token_ids
    return Outcome((found.spans, prompt), (found.passes, found.nodes, len(prompt) - 1), _since(model, before))


def _edit(model: Model, which: int) -> Outcome:

    text = model.edit(("a=(1,)\nx=a\nab=x", "count=1\nx=count")[which])
    before = _counts(model)
    done = text.replace(0, 1, "ab")
    encoded = _since(model, before)[2]
    before = _counts(model)
    result = text.generate(method="plain", max_new_tokens=8, temperature=0.8, seed=2)
    passes = _since(model, before)[0]
    again = text.generate(method="plain", max_new_tokens=8, temperature=0.8, seed=2)
    assert again.token_ids == result.token_ids and not _since(model, before)[2], "the cache of the text was lost"
    ended = result.token_ids[-1] in model.eos_token_ids
    assert result.finish_reason == ("stop" if ended else "length") and (ended or len(result.token_ids) == 8)
    assert not text.exact and not result.exact, "entries were moved"
    value = (text.text, text.tokens, replace(done, ms=0.0), result.token_ids, result.text)
    text.close()
    return Outcome(value, (done.encoded, result.statistics.passes), (encoded, passes))


def _counts(model: Model) -> tuple[int, int, int]:
    counted: Any = model.language_model
    return counted.passes, counted.nodes, counted.filled


def _since(model: Model, before: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(now - then for now, then in zip(_counts(model), before, strict=True))


CASES: dict[str, Case] = {
    "rpg": Case({"decay": 0.01}, ("x=1\na=1\nb=1\n", "ab,ab,ab,ab")),
    "grammar": Case({"regex": REGEX}, complete=_in_regex),
    "monitor": Case(prompts=("a=(1,)\na.", "ab=(1,)\nx=ab.co"), complete=_name_is_whole),
    "asap": Case({"regex": REGEX}, complete=_in_regex),
    "cars": Case({"regex": REGEX}, complete=_in_regex),
    "beam": Case({"num_beams": 3}),
    "plan": Case({"max_completions": 12}, reward=lambda text: len(set(text)) / 100),
    "extract": Case(run=_extract),
    "edit": Case(run=_edit),
}


def rows(*kinds: Kind[Any]) -> list[Any]:
    """The registered rows of these kinds, one test each."""
    return [pytest.param(row, id=name) for name, row in methods.methods().items() if row.kind in kinds]


def case(row: Row) -> Case:
    """How to call a row: what ``CASES`` says, else with the options that it names itself (``Method.trial``)."""
    reward = _variety if row.needs.reward else None
    return CASES.get(row.name) or Case(row.trial, reward=reward)


def _variety(text: str) -> float:
    return len(set(text)) / 100


@contextmanager
def shared_answers() -> Iterator[None]:
    """A static analyser answers from the text alone and takes milliseconds: here it is asked about a text once."""
    suggestions = JediAnalyser.suggestions
    known = lru_cache(maxsize=None)(lambda text, offset: suggestions(JediAnalyser(), text, offset))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JediAnalyser, "suggestions", lambda self, text, offset: known(text, offset))
        yield
