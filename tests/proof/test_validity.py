"""``prove`` for methods that promise valid output, and for those that promise nothing, on a real model."""

from __future__ import annotations

from typing import Any

import pytest

import unspool
from unspool.decoding.model import Model
from unspool.methods.constraints.grammar import GrammarConstraint
from unspool.methods.constraints.grammar import validity as grammar
from unspool.methods.constraints.monitor import MonitorConstraint
from unspool.methods.search import extract
from unspool.methods.shaping.rpg import RPG
from unspool.proof import distance, validity
from unspool.proof.prove import prove
from unspool.proof.result import MethodProof

PROMPTS = ["Why does bread rise?", "List the numbers from 1 to 20 in English words, one a line."]


@pytest.fixture(scope="module")
def model() -> Model:
    return unspool.load("smollm2-135m")


def rows(model: Model, name: str, temperature: float = 0.0, max_new_tokens: int = 24) -> list[MethodProof]:
    proof = prove(model, [name], PROMPTS, temperatures=[temperature], max_new_tokens=max_new_tokens)
    return [row for row in proof.rows if row.method == name]


@pytest.mark.parametrize("task", grammar.tasks(), ids=lambda task: task.about)
def test_judges_refuse_what_does_not_fit(task: grammar.Task) -> None:
    assert not any(map(task.fits, ["", "a tall tree", "{}", "[1]", "1 +", "25:00", "lightgreen"]))


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ("a person", '{"name": "Bo", "home": {"street": "x", "number": 3}}'),
        ("a tree", '{"value": 1, "left": {"value": 2}}'),
        ("a shape", '{"width": 1, "height": 99}'),
        ("scores", "[1, 2]"),
        ("a time of the day", "23:59"),
        ("a sum of numbers", "(1 + 22) - 3"),
    ],
)
def test_judges_take_what_fits(about: str, text: str) -> None:
    (task,) = (task for task in grammar.tasks() if task.about == about)
    assert task.fits(text)


@pytest.mark.model
def test_output_under_grammars_is_valid_and_what_was_cut_is_counted_apart(model: Model) -> None:
    (row,) = rows(model, "grammar")
    assert row.check == "validity" and row.faults == 0 and row.prompts == len(grammar.tasks())
    assert row.details["valid"] + row.details["cut"] == row.prompts  # type: ignore[operator]
    assert row.details["valid"] >= 4 and row.details["cut"] >= 1  # type: ignore[operator]


@pytest.mark.model
def test_a_grammar_that_lets_anything_through_is_found(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GrammarConstraint, "_check_some_text_fits", lambda self: None)
    monkeypatch.setattr(GrammarConstraint, "allowed", lambda self, path: None)
    monkeypatch.setattr(GrammarConstraint, "is_allowed", lambda self, path, token: True)
    monkeypatch.setattr(GrammarConstraint, "forced", lambda self: ())
    monkeypatch.setattr(GrammarConstraint, "advance", lambda self, tokens: None)
    monkeypatch.setattr(GrammarConstraint, "parse", lambda self, text: None)
    (row,) = rows(model, "grammar", max_new_tokens=100)
    assert row.faults > 0


@pytest.mark.model
def test_a_monitor_that_lets_anything_through_is_found(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    (right,) = rows(model, "monitor")
    monkeypatch.setattr(MonitorConstraint, "allowed", lambda self, path: None)
    monkeypatch.setattr(MonitorConstraint, "is_allowed", lambda self, path, token: True)
    monkeypatch.setattr(MonitorConstraint, "advance", lambda self, tokens: None)
    (wrong,) = rows(model, "monitor")
    assert right.faults == 0 == right.details["cut"] and right.details["valid"] == 4
    assert wrong.faults > 0


@pytest.mark.model
def test_a_wrong_probability_of_a_span_is_found(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    (right,) = rows(model, "extract")
    found = extract.search

    def search(*args: Any) -> Any:
        result = found(*args)
        for span in result.spans:
            object.__setattr__(span, "logprobs", tuple(p - 0.01 for p in span.logprobs))
        return result

    monkeypatch.setattr("unspool.decoding.extract.search", search)
    (wrong,) = rows(model, "extract")
    assert right.faults == 0 and right.details["valid"] == len(validity.QUESTIONS)
    assert wrong.faults == len(validity.QUESTIONS)


@pytest.mark.model
def test_lossy_methods_are_measured_and_never_at_fault(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    (beam,) = rows(model, "beam")
    assert beam.check == "distance" and beam.faults == beam.ties == 0 and beam.identical < len(PROMPTS)
    # What beams find is likelier than what greedy decoding does.
    assert beam.details["logprob"] > beam.details["logprob_reference"]  # type: ignore[operator]
    monkeypatch.setattr(RPG, "__call__", lambda self, tokens, logits: logits)
    (same,) = rows(model, "rpg")
    assert same.identical == len(PROMPTS) and "first_difference_median" not in same.details


@pytest.mark.model
def test_an_edited_cache_is_compared_with_the_text_encoded_anew(model: Model) -> None:
    (row,) = rows(model, "edit")
    assert row.check == "distance" and row.prompts == len(PROMPTS)
    assert row.details["compared_with"] == "the edited text, encoded again"


@pytest.mark.parametrize(
    ("prompt", "left"), [("one two three", "one three"), ("one two", "one"), ("word", "wod"), ("x", "x")]
)
def test_some_text_stays_of_every_prompt_that_is_edited(prompt: str, left: str) -> None:
    start, stop = distance.middle(prompt)
    assert prompt[:start] + prompt[stop:] == left
