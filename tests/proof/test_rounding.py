"""The measured noise is the backend's: of every width, and of nothing that a broken cache adds."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conformance.faults import OffByOne, RejectedKept
from tests.proof.conftest import Rounding, toy
from tests.proof.faults import Shifted, SiblingsSwapped
from unspool.backends.toy import ToySession
from unspool.proof.case import Case
from unspool.proof.rounding import WIDTHS, NoiseMeter, points

PROMPT = [0, 1, 2]


def measured(session: type[ToySession], temperature: float = 0.0, tokens: int = 40) -> NoiseMeter:
    model = toy(session)
    result = model.generate(PROMPT, method="plain", max_new_tokens=tokens, temperature=temperature)
    meter = NoiseMeter(model.language_model, temperature)
    meter.measure(Case(0, PROMPT, 0, result.token_ids, [0.0] * tokens))
    return meter


def test_an_exact_backend_has_no_noise() -> None:
    meter = measured(ToySession)
    assert meter.limit == meter.root == meter.chain == 0
    assert [(point.width, point.max, point.rms) for point in points([meter])] == [(width, 0, 0) for width in WIDTHS]


@pytest.mark.parametrize("session", [OffByOne, RejectedKept, Shifted, SiblingsSwapped])
def test_faults_of_commit_are_not_noise(session: type[ToySession]) -> None:
    # The first two tokens come after the prefill, which all runs have in common.
    assert measured(session).chain == 0


def test_the_figures_are_those_of_the_rounding() -> None:
    meter = measured(Rounding)
    still, *others = points([meter])
    assert (still.width, still.max) == (1, 0)
    for point in others:
        assert 0.0008 < point.max <= 0.001
        assert point.rms == pytest.approx(0.001 / np.sqrt(3), rel=0.15)
    assert 0.0005 < meter.root <= 0.001
    # A lead is the difference of two logits.
    assert 0.001 < meter.limit <= 0.002


def test_the_limit_is_in_scores_of_the_temperature() -> None:
    assert measured(Rounding, 0.1).limit == pytest.approx(10 * measured(Rounding, 0.0).limit, rel=0.3)


def test_short_outputs_are_scored_at_every_width() -> None:
    assert [point.width for point in points([measured(Rounding, tokens=3)])] == list(WIDTHS)


def test_a_case_is_measured_once() -> None:
    meter = measured(Rounding)
    opened = meter.model.opened  # type: ignore[attr-defined]
    meter.measure(Case(0, PROMPT, 0, [1], [0.0]))
    assert meter.model.opened == opened  # type: ignore[attr-defined]
    meter.measure(Case(1, PROMPT, 0, [1], [0.0]))
    assert meter.model.opened == opened + 1  # type: ignore[attr-defined]


def test_passes_stay_within_the_context() -> None:
    model = toy()
    model.language_model._max_length = 20  # type: ignore[attr-defined]
    result = model.generate(PROMPT, method="plain", max_new_tokens=17)
    meter = NoiseMeter(model.language_model, 0.0)
    meter.measure(Case(0, PROMPT, 0, result.token_ids, [0.0] * 17))
    assert [point.width for point in points([meter])] == [1, 2, 4, 8, 16]
