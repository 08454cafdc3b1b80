"""Which methods a proof can test, at which temperatures, and how each one is run."""

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
from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError
from unspool.methods import Chosen, Resources
from unspool.methods.spec import parse
from unspool.models.tokenizer import Tokenizer

TESTS: dict[Guarantee, tuple[Kind[Any], ...]] = {
    "identical": (DRAFTER, ACCEPTANCE),
    "same distribution": (DRAFTER, ACCEPTANCE),
    "valid": (SAMPLER, CONSTRAINT, SPAN),
    "lossy": (SHAPER, SEARCH, EDIT),
}
"""The kinds that have a test, by guarantee."""


class Run(NamedTuple):
    """How a method is run."""

    drafter: str
    acceptance: str | None


def choose(
    names: Sequence[str] | None,
    temperatures: Sequence[float],
    resources: Resources | None = None,
    assistant: object | None = None,
) -> tuple[list[Chosen[Any]], dict[str, str]]:
    """The methods of these names, of any kind; for None, all that can be proven.

    Args:
        temperatures: each method needs at least one that suits it.
        resources: given once the model is loaded; takes into account what it and the draft model offer.
        assistant: until then, the draft model's name, if there will be one.

    Returns:
        The methods, and the reason for each one left out, by name.

    Raises:
        UnknownNameError: if there is no method of a name.
        UnspoolError: if a name appears twice.
        UnsupportedError: if a named method cannot be proven under these conditions.
    """
    known = {name: method for name, method in methods.methods().items() if not method.kind.on_canvas}
    left_out = {}
    chosen: list[Chosen[Any]] = []
    for spec in known if names is None else names:
        name = parse(spec).name
        if name not in known:
            raise UnknownNameError("method", name, known)
        row = known[name]
        try:
            # Each task of these kinds has its own options. For others with incomplete defaults, the row's options are
            # used.
            of_tasks = spec == name and row.kind in (CONSTRAINT, SAMPLER)
            trial = row.trial if spec == name else None
            method = Chosen(row, None) if of_tasks else methods.choose(spec, row.kind, trial)
            _check(method, temperatures, resources, assistant)
        except UnsupportedError as error:
            if names is not None:
                raise
            left_out[spec] = str(error)
        else:
            if method.spec in [other.spec for other in chosen]:
                raise UnspoolError(f"{spec} is named twice among the methods; name it once")
            chosen.append(method)
    return chosen, left_out


def _check(
    method: Chosen[Any], temperatures: Sequence[float], resources: Resources | None, assistant: object | None
) -> None:
    if reason := _untested(method):
        raise UnsupportedError(f"{method.spec} {reason}; leave it out")
    if not enumerable(method) and not any(applies(method, temperature) for temperature in temperatures):
        suited = "temperature 0" if applies(method, 0) else "temperatures above 0"
        raise UnsupportedError(f"{method.spec} is for {suited}; add one, or leave the method out")
    check_installed(method.row)
    if resources is None:
        check_assisted(method.row, assistant)
    else:
        methods.check(method.row, resources)
        if method.row.kind not in _TOKENS_ALONE and not isinstance(resources.tokenizer, Tokenizer):
            raise UnsupportedError(
                f"{method.spec} needs the model's tokenizer, which this model does not have; leave it out"
            )


_TOKENS_ALONE = (DRAFTER, ACCEPTANCE, SEARCH)


def _untested(method: Chosen[Any]) -> str:
    """Why there is no test for the method; empty if there is one."""
    if method.row.kind is BATCH:
        return "is a batch plan, and a proof decodes prompt by prompt"
    if method.row.needs.reward:
        return "needs a reward of its output, which prompts alone do not give"
    if method.row.kind is CONSTRAINT and not method.row.validity:
        return "has no tasks to check whether its texts are valid (METHOD.validity)"
    if method.row.kind in TESTS.get(method.row.guarantee, ()):
        return ""
    return f"is {method.row.guarantee!r} of kind {method.row.kind}, for which there is no test"


def applies(method: Chosen[Any], temperature: float) -> bool:
    """Whether runs at this temperature test the method."""
    if method.row.guarantee == "same distribution" or method.row.kind is SAMPLER:
        return temperature > 0
    if method.row.kind in (SEARCH, SPAN, EDIT):
        return temperature == 0
    if method.row.kind in (SHAPER, CONSTRAINT):
        return True
    return method.row.kind is DRAFTER or method.row.at_temperature in (
        "any",
        "zero" if temperature == 0 else "above zero",
    )


def enumerable(method: Chosen[Any]) -> bool:
    """Whether the method's distribution can be enumerated on tiny models."""
    return method.row.kind is ACCEPTANCE and method.row.guarantee == "same distribution"


def run_of(method: Chosen[Any]) -> Run:
    """The run that tests the method; without an acceptance rule, with the one that suits the temperature."""
    if method.row.kind is ACCEPTANCE:
        return Run(methods.WIDE, method.spec)
    return Run(method.spec, None if method.row.guarantee == "identical" else methods.TESTED)
