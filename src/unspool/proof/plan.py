"""Which methods a proof can test, at which temperatures, and what each is run as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from unspool import methods
from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError
from unspool.methods import Method, Surroundings
from unspool.models.tokenizer import Tokenizer

TASKS = ("grammar", "monitor", "extract", "edit")
"""Methods that a proof has tasks of their own for."""

DRAFTER = "token_recycling"
"""Drafts for acceptance rules: wide trees of likely tokens, so that siblings are accepted and rejected."""


class Run(NamedTuple):
    """What a method is run as."""

    drafter: str
    acceptance: str | None


def choose(
    names: Sequence[str] | None,
    temperatures: Sequence[float],
    surroundings: Surroundings | None = None,
    assistant: object | None = None,
) -> tuple[list[Method], dict[str, str]]:
    """The methods of these names, of either kind; for None all that can be proven.

    Args:
        temperatures: at least one of them must suit each method.
        surroundings: once there is a model; what it and the draft model offer then plays a part.
        assistant: before, the draft model's name, if there is to be one.

    Returns:
        The methods, and by name those that were left out of all, and why.

    Raises:
        UnknownNameError: for a name that no method has.
        UnspoolError: for a name that comes twice.
        UnsupportedError: for a named method that cannot be proven so.
    """
    known = {name: method for name, method in methods.methods().items() if not method.on_canvas}
    left_out = {}
    chosen = []
    if names is not None and (twice := next((name for name in names if list(names).count(name) > 1), None)):
        raise UnspoolError(f"{twice} is named twice among the methods; name it once")
    for name in known if names is None else names:
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
    method: Method, temperatures: Sequence[float], surroundings: Surroundings | None, assistant: object | None
) -> None:
    if reason := _untested(method):
        raise UnsupportedError(f"{method.name} {reason}; leave it out")
    if not enumerable(method) and not any(applies(method, temperature) for temperature in temperatures):
        suited = "temperature 0" if applies(method, 0) else "temperatures above 0"
        raise UnsupportedError(f"{method.name} is for {suited}; add one, or leave the method out")
    methods.check_installed(method)
    if surroundings is None:
        methods.check_assisted(method, assistant)
    else:
        methods.check_needs(method, surroundings)
        if method.kind not in _TOKENS_ALONE and not isinstance(surroundings.tokenizer, Tokenizer):
            raise UnsupportedError(f"{method.name} needs the model's tokenizer, which this model has not; leave it out")


_TOKENS_ALONE = ("drafter", "acceptance", "search")


def _untested(method: Method) -> str:
    """Why there is no test for the method; empty if there is one."""
    if method.kind == "batch":
        return "is a batch plan, and a proof decodes prompt by prompt"
    if method.name == "plan":
        return "needs a reward of its output, which prompts alone do not give"
    tests = {
        "identical": ("drafter", "acceptance"),
        "same distribution": ("drafter", "acceptance"),
        "valid": ("sampler",),
        "lossy": ("shaper", "search"),
    }
    if method.kind in tests[method.guarantee] or (method.name in TASKS and method.guarantee in ("valid", "lossy")):
        return ""
    return f"is {method.guarantee!r} of kind {method.kind}, for which there is no test"


def applies(method: Method, temperature: float) -> bool:
    """Whether runs of this temperature test the method."""
    if method.guarantee == "same distribution" or method.kind == "sampler":
        return temperature > 0
    if method.kind in ("search", "program"):
        return temperature == 0
    if method.kind in ("shaper", "constraint"):
        return True
    return method.kind == "drafter" or (temperature == 0) == (method.name == "greedy")


def enumerable(method: Method) -> bool:
    """Whether the method's distribution can be listed on tiny models."""
    return method.kind == "acceptance" and method.guarantee == "same distribution"


def run_of(method: Method) -> Run:
    """What is run to test the method; without an acceptance rule it is the one that suits the temperature."""
    if method.kind == "acceptance":
        return Run(DRAFTER, method.name)
    return Run(method.name, None if method.guarantee == "identical" else "lossless")
