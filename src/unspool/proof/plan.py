"""Which methods a proof can test, at which temperatures, and what each is run as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from unspool import methods
from unspool.engine.method import (
    ACCEPTANCE,
    BATCH,
    CONSTRAINT,
    DRAFTER,
    EDIT,
    SAMPLER,
    SEARCH,
    SHAPER,
    SPAN,
    Guarantee,
    Kind,
    check_assisted,
    check_installed,
)
from unspool.errors import UnknownNameError, UnsupportedError
from unspool.methods import Resources, Row
from unspool.models.tokenizer import Tokenizer

TESTS: dict[Guarantee, tuple[Kind[Any], ...]] = {
    "identical": (DRAFTER, ACCEPTANCE),
    "same distribution": (DRAFTER, ACCEPTANCE),
    "valid": (SAMPLER, CONSTRAINT, SPAN),
    "lossy": (SHAPER, SEARCH, EDIT),
}
"""The kinds that there is a test for, by what is guaranteed."""

BESIDE = "token_recycling"
"""Drafts for acceptance rules: wide trees of likely tokens, so that siblings are accepted and rejected."""


class Run(NamedTuple):
    """What a method is run as."""

    drafter: str
    acceptance: str | None


def choose(
    names: Sequence[str] | None,
    temperatures: Sequence[float],
    surroundings: Resources | None = None,
    assistant: object | None = None,
) -> tuple[list[Row], dict[str, str]]:
    """The methods of these names, of either kind; for None all that can be proven.

    Args:
        temperatures: at least one of them must suit each method.
        surroundings: once there is a model; what it and the draft model offer then plays a part.
        assistant: before, the draft model's name, if there is to be one.

    Returns:
        The methods, and by name those that were left out of all, and why.

    Raises:
        UnknownNameError: for a name that no method has.
        UnsupportedError: for a named method that cannot be proven so.
    """
    known = {name: method for name, method in methods.methods().items() if not method.kind.on_canvas}
    left_out = {}
    chosen = []
    for name in known if names is None else dict.fromkeys(names):
        if name not in known:
            raise UnknownNameError("method", name, known)
        method = known[name]
        try:
            _check(method, temperatures, surroundings, assistant)
        except UnsupportedError as error:
            if names is not None:
                raise
            left_out[name] = str(error)
        else:
            chosen.append(method)
    return chosen, left_out


def _check(
    method: Row, temperatures: Sequence[float], surroundings: Resources | None, assistant: object | None
) -> None:
    if reason := _untested(method):
        raise UnsupportedError(f"{method.name} {reason}; leave it out")
    if not enumerable(method) and not any(applies(method, temperature) for temperature in temperatures):
        suited = "temperature 0" if applies(method, 0) else "temperatures above 0"
        raise UnsupportedError(f"{method.name} is for {suited}; add one, or leave the method out")
    check_installed(method)
    if surroundings is None:
        check_assisted(method, assistant)
    else:
        methods.check(method, surroundings)
        if method.kind not in _TOKENS_ALONE and not isinstance(surroundings.tokenizer, Tokenizer):
            raise UnsupportedError(f"{method.name} needs the model's tokenizer, which this model has not; leave it out")


_TOKENS_ALONE = (DRAFTER, ACCEPTANCE, SEARCH)


def _untested(method: Row) -> str:
    """Why there is no test for the method; empty if there is one."""
    if method.kind is BATCH:
        return "is a batch plan, and a proof decodes prompt by prompt"
    if method.needs.reward:
        return "needs a reward of its output, which prompts alone do not give"
    if method.kind in TESTS.get(method.guarantee, ()):
        return ""
    return f"is {method.guarantee!r} of kind {method.kind}, for which there is no test"


def applies(method: Row, temperature: float) -> bool:
    """Whether runs of this temperature test the method."""
    if method.guarantee == "same distribution" or method.kind is SAMPLER:
        return temperature > 0
    if method.kind in (SEARCH, SPAN, EDIT):
        return temperature == 0
    if method.kind in (SHAPER, CONSTRAINT):
        return True
    return method.kind is DRAFTER or method.at_temperature in ("any", "greedy" if temperature == 0 else "sampled")


def enumerable(method: Row) -> bool:
    """Whether the method's distribution can be listed on tiny models."""
    return method.kind is ACCEPTANCE and method.guarantee == "same distribution"


def run_of(method: Row) -> Run:
    """What is run to test the method; without an acceptance rule it is the one that suits the temperature."""
    if method.kind is ACCEPTANCE:
        return Run(BESIDE, method.name)
    return Run(method.name, None if method.guarantee == "identical" else "lossless")
