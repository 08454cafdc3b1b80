"""Where runs part from plain decoding, what is a tie, and what comes after one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.proof.conftest import Rounding, toy
from unspool.decoding.model import Model
from unspool.engine.trace import StepEvent
from unspool.proof.case import Case
from unspool.proof.identity import first_difference, judge, rescore
from unspool.proof.result import Difference
from unspool.proof.rounding import NoiseMeter

PROMPT = [0, 1, 2, 0, 1, 2, 0]
TOKENS = 30
EOS = 3


def case_of(model: Model, temperature: float = 0.0, seed: int = 5, number: int = 0) -> Case:
    result = model.generate(PROMPT, method="plain", max_new_tokens=TOKENS, temperature=temperature, seed=seed)
    margins = [margin for event in result.trace if isinstance(event, StepEvent) for margin in event.margins]
    return Case(number, PROMPT, seed, result.token_ids, margins)


def continued(model: Model, ids: Sequence[int], temperature: float = 0.0, seed: int = 5) -> list[int]:
    """Plain decoding's run from these first tokens on; noise belongs to the position, so it is the same."""
    rest = model.generate(
        [*PROMPT, *ids], method="plain", max_new_tokens=TOKENS - len(ids), temperature=temperature, seed=seed
    )
    return [*ids, *rest.token_ids]


class Preset(NoiseMeter):
    """A meter that has already found its noise."""

    def __init__(self, model: Model, temperature: float, limit: float) -> None:
        super().__init__(model.language_model, temperature)
        self.limit = limit

    def measure(self, case: Case) -> None: ...


def judged(
    model: Model, case: Case, ids: Sequence[int], temperature: float = 0.0, limit: float | None = None
) -> list[Difference]:
    found = judge(
        model.language_model,
        [case],
        {"run": [ids]},
        temperature=temperature,
        max_new_tokens=TOKENS,
        eos=model.eos_token_ids,
        meter=None if limit is None else Preset(model, temperature, limit),
    )
    return found["run"][0]


@pytest.mark.parametrize(
    ("plain", "other", "index"),
    [([1, 2, 3], [1, 2, 3], None), ([1, 2, 3], [1, 9, 3], 1), ([1, 2], [1, 2, 3], 2), ([1, 2], [], 0), ([], [], None)],
)
def test_first_difference(plain: list[int], other: list[int], index: int | None) -> None:
    assert first_difference(plain, other) == index
    assert first_difference(other, plain) == index


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_runs_without_a_difference_cost_no_pass(temperature: float) -> None:
    model = toy()
    case = case_of(model, temperature)
    opened = model.language_model.opened  # type: ignore[attr-defined]
    assert judged(model, case, list(case.token_ids), temperature) == []
    assert model.language_model.opened == opened  # type: ignore[attr-defined]


def _least_gap(model: Model, case: Case) -> tuple[int, int, float]:
    """The output token with the least lead, its runner-up and the lead, from the model's table."""
    index = int(np.argmin(case.margins[:-5]))
    p = model.language_model.probabilities([*PROMPT, *case.token_ids[:index]])  # type: ignore[attr-defined]
    second = int(np.argsort(p)[-2])
    return index, second, float(np.log(p[case.token_ids[index]]) - np.log(p[second]))


def test_a_gap_below_the_noise_is_a_tie_and_one_above_it_a_fault() -> None:
    model = toy()
    case = case_of(model)
    index, other, gap = _least_gap(model, case)
    run = continued(model, [*case.token_ids[:index], other])
    for limit, verdict in ((gap * 1.001, "tie"), (gap * 0.999, "fault")):
        (found,) = judged(model, case, run, limit=limit)
        assert (found.index, found.plain, found.other, found.verdict) == (index, case.token_ids[index], other, verdict)
        assert found.gap == pytest.approx(gap) == found.margin == case.margins[index]


def test_without_noise_equal_logits_are_no_excuse() -> None:
    model = toy()
    case = case_of(model)
    index, other, _ = _least_gap(model, case)
    (found,) = judged(model, case, continued(model, [*case.token_ids[:index], other]))
    assert found.verdict == "fault"


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_text_after_a_tie_is_proven_too(temperature: float) -> None:
    model = toy()
    case = case_of(model, temperature)
    index = int(np.argmin(case.margins[:-8]))
    tokens = range(model.language_model.vocab_size)
    limit = case.margins[index] * 1.001
    others = [[*case.token_ids[:index], token] for token in tokens if token != case.token_ids[index]]
    runs = [continued(model, ids, temperature) for ids in others]
    ((run, (tie,)),) = [
        (run, found) for run in runs if (found := judged(model, case, run, temperature, limit))[0].verdict == "tie"
    ]
    assert tie.index == index
    at = index + 4
    wrong = [*run[:at], (run[at] + 1) % 6]
    first, second = judged(model, case, continued(model, wrong, temperature), temperature, limit)
    assert first == tie
    assert (second.index, second.plain, second.other, second.verdict) == (at, run[at], wrong[-1], "fault")


def test_ends_at_the_wrong_place_are_faults() -> None:
    model = toy(eos=EOS)
    case = next(case for seed in range(50) if 8 < len((case := case_of(model, 1.0, seed)).token_ids) < TOKENS)
    assert case.token_ids[-1] == EOS

    def only(ids: Sequence[int]) -> Difference:
        (found,) = judged(model, case, ids, 1.0)
        assert found.verdict == "fault"
        return found

    early = only(case.token_ids[:-2])
    assert (early.index, early.plain, early.other) == (len(case.token_ids) - 2, case.token_ids[-2], None)
    late = only([*case.token_ids, 1])
    assert (late.index, late.plain, late.other) == (len(case.token_ids), None, 1)


def test_ends_at_the_wrong_place_after_a_tie_are_faults() -> None:
    model = toy()
    case = case_of(model)
    index, other, gap = _least_gap(model, case)
    run = continued(model, [*case.token_ids[:index], other])
    _, early = judged(model, case, run[:-3], limit=gap * 1.001)
    assert (early.index, early.plain, early.other, early.verdict) == (TOKENS - 3, run[-3], None, "fault")
    _, late = judged(model, case, [*run, 1], limit=gap * 1.001)
    assert (late.index, late.plain, late.other, late.verdict) == (TOKENS, None, 1, "fault")


def test_going_on_behind_end_of_text_after_a_tie_is_a_fault() -> None:
    model = toy()
    case = case_of(model)
    index, other, gap = _least_gap(model, case)
    run = continued(model, [*case.token_ids[:index], other])
    ended = next(i for i in range(index, TOKENS) if run[i] not in run[:i])
    model.eos_token_ids = frozenset({run[ended]})
    last = judged(model, case, run, limit=gap * 1.001)[-1]
    assert (last.index, last.plain, last.other, last.verdict) == (ended + 1, None, run[ended + 1], "fault")


def test_noise_is_measured_for_the_verdict() -> None:
    model = toy(Rounding, near_ties=True)
    case = case_of(model)
    near = [i for i, margin in enumerate(case.margins) if margin < 0.001]
    p = model.language_model.probabilities([*PROMPT, *case.token_ids[: near[0]]])  # type: ignore[attr-defined]
    ids = [*case.token_ids[: near[0]], int(np.argsort(p)[-2])]
    assert {found.verdict for found in judged(model, case, continued(model, ids))} == {"tie"}


def test_noise_is_measured_on_the_first_cases_and_on_the_one_that_differs() -> None:
    model = toy()
    cases = [case_of(model, number=number) for number in range(7)]
    wrong = [(cases[6].token_ids[0] + 1) % 6]
    runs = [*(case.token_ids for case in cases[:6]), continued(model, wrong)]
    meter = NoiseMeter(model.language_model, 0.0)
    judge(
        model.language_model, cases, {"run": runs}, temperature=0.0, max_new_tokens=TOKENS, eos=frozenset(), meter=meter
    )
    assert len(meter.leads) == 5 * TOKENS


def test_plain_decoding_itself_is_rescored() -> None:
    model = toy()
    case = case_of(model)
    assert rescore(NoiseMeter(model.language_model, 0.0), case) == []
    ids = [*case.token_ids]
    ids[4] = (ids[4] + 1) % 6
    wrong = Case(0, PROMPT, 5, ids, case.margins)
    (found,) = rescore(NoiseMeter(model.language_model, 0.0), wrong)
    assert (found.index, found.plain, found.other, found.verdict) == (4, case.token_ids[4], ids[4], "fault")
