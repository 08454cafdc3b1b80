"""The check of a backend's sessions names what is broken and lets rounding pass."""

from __future__ import annotations

import pytest

from tests.proof.conftest import Rounding, toy
from tests.proof.faults import (
    DepthOffByOne,
    Drifting,
    OffByOne,
    SeesSibling,
    SeesTheFuture,
    SharedByForks,
    Shifted,
    SiblingsSwapped,
    StaleAfterRewind,
)
from unspool.backends.toy import ToySession
from unspool.proof import session
from unspool.proof.case import Case
from unspool.proof.result import MethodProof
from unspool.proof.rounding import NoiseMeter

PROMPT = [0, 1, 2, 4]


def checked(kind: type[ToySession], tokens: int = 40) -> MethodProof:
    model = toy(kind)
    result = model.generate(PROMPT, method="plain", max_new_tokens=tokens)
    case = Case(0, PROMPT, 0, result.token_ids, [0.0] * tokens)
    meter = NoiseMeter(model.language_model, 0.0)
    meter.measure(case)
    return session.check(meter, [case])


def broken(row: MethodProof) -> set[str]:
    return {name for name, value in row.details.items() if name != "allowed" and value > row.details["allowed"]}


@pytest.mark.parametrize("tokens", [1, 2, 12, 40])
@pytest.mark.parametrize("kind", [ToySession, Rounding])
def test_a_right_session_passes(kind: type[ToySession], tokens: int) -> None:
    row = checked(kind, tokens)
    assert (row.prompts, row.identical, row.faults) == (1, 1, 0)
    assert row.tokens == 4 * min(tokens, 12)


@pytest.mark.parametrize(
    ("kind", "ways"),
    [
        (OffByOne, {"trees"}),
        (Shifted, {"trees"}),
        (SiblingsSwapped, {"trees"}),
        (SeesSibling, {"trees"}),
        (DepthOffByOne, {"widths", "trees"}),
        # What shows in every pass of several nodes does not pass for rounding.
        (Drifting, {"widths", "trees"}),
        (SeesTheFuture, {"widths", "trees"}),
        (StaleAfterRewind, {"rewind"}),
        (SharedByForks, {"beside a fork"}),
    ],
)
def test_what_is_broken_is_named(kind: type[ToySession], ways: set[str]) -> None:
    row = checked(kind)
    assert ways <= broken(row)
    assert row.faults == len(broken(row)) and row.identical == 0
