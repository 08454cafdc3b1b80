"""Helpers for checks of methods that have their own verb."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from unspool.conformance.check import Row, require
from unspool.decoding.model import Model


@dataclass(frozen=True)
class Counted:
    """What a call gave.

    Attributes:
        value: all of it that does not depend on time; two equal calls give two equal values.
        claimed: figures that it states of its work.
        counted: the same figures, as the model counted them.
    """

    value: object
    claimed: tuple[int, ...]
    counted: tuple[int, ...]

    def check(self) -> None:
        """Require that the figures are right and that there was work."""
        require(self.claimed == self.counted, f"it states {self.claimed}, the model counts {self.counted}")
        require(all(figure > 0 for figure in self.claimed), f"it did no work: {self.claimed}")


def counts(model: Model) -> tuple[int, int, int]:
    """Passes, evaluated and stored tokens of a ``CountedModel`` so far."""
    counted: Any = model.language_model
    return counted.passes, counted.nodes, counted.filled


def since(model: Model, before: tuple[int, int, int]) -> tuple[int, ...]:
    """The same since then."""
    return tuple(now - then for now, then in zip(counts(model), before, strict=True))


def verb_of(row: Row) -> Callable[..., Any]:
    """The function that the method is called through."""
    verb: Callable[..., Any] = getattr(importlib.import_module(f"unspool.decoding.{row.name}"), row.name)
    return verb


def by_name(row: Row) -> None:
    """The verb accepts the options by name, with their defaults."""
    parameters = inspect.signature(verb_of(row)).parameters
    for option in fields(row.options):
        parameter = parameters.get(option.name)
        require(parameter and parameter.kind is parameter.KEYWORD_ONLY, f"it does not take {option.name} by name")
        default = parameter.default if parameter else None
        require(default == option.default, f"the default of {option.name} is {default!r}, not {option.default!r}")
