"""Run contract checks on methods, for ``unspool check`` and ``pytest --pyargs unspool.conformance``.

A check is a function of a registry row that returns nothing and raises ``CheckFailed`` with the reason. Its docstring
is one line that states the rule. The checks of a kind are in a module of this package, ``MODULES``.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from unspool import methods
from unspool.engine.method import (
    ACCEPTANCE,
    BATCH,
    CHANNEL,
    COMPRESSOR,
    CONSTRAINT,
    DRAFTER,
    EDIT,
    PROBE,
    SAMPLER,
    SCHEDULE,
    SEARCH,
    SHAPER,
    SPAN,
    STOP,
    TRANSFORM,
    UNMASK,
    Kind,
    Method,
)
from unspool.errors import UnspoolError

Row = Method[Any, Any]
Check = Callable[[Row], None]

MODULES: dict[Kind[Any], tuple[str, ...]] = {
    DRAFTER: ("drafter", "memory"),
    ACCEPTANCE: ("acceptance",),
    BATCH: ("batch",),
    SHAPER: ("steered", "shaper"),
    CONSTRAINT: ("steered", "constraint"),
    SAMPLER: ("sampler",),
    SEARCH: ("search",),
    SPAN: ("span",),
    EDIT: ("edit",),
    UNMASK: ("canvas",),
    TRANSFORM: ("canvas",),
    SCHEDULE: ("canvas",),
    STOP: ("canvas",),
    PROBE: ("probe",),
    CHANNEL: ("channel",),
    COMPRESSOR: ("compressor",),
}
"""Modules of this package whose ``CHECKS`` are run on the methods of a kind, after those of ``options``."""


class CheckFailed(AssertionError):  # noqa: N818
    """A method violates its contract; the message says how."""


def require(holds: object, message: str) -> None:
    """Raise a ``CheckFailed`` with this message unless ``holds`` is true."""
    if not holds:
        raise CheckFailed(message)


@dataclass(frozen=True)
class Outcome:
    """One check of one method.

    Attributes:
        method: name of the method.
        check: name of the check.
        rule: what must hold, in one line.
        reason: why the check failed; empty if it passed.
        seconds: that it took.
    """

    method: str
    check: str
    rule: str
    reason: str
    seconds: float

    @property
    def passed(self) -> bool:
        return not self.reason


def checks(row: Row) -> list[Check]:
    """The checks of the row's kind."""
    modules = ("options", *MODULES.get(row.kind, ()))
    return [check for name in modules for check in import_module(f"{__package__}.{name}").CHECKS]


def options_of(row: Row) -> Mapping[str, Any]:
    """The options that a method is run with: those of its case, else of ``trial``, else the defaults."""
    return {**row.trial, **row.case.options}


def built_in(*kinds: Kind[Any]) -> list[Row]:
    """unspool's own methods of these kinds; a fault of another package's would show in every check."""
    return [row for row in methods.of_kind(*kinds) if methods.module_of(row.name).startswith("unspool.")]


def rule_of(check: Check) -> str:
    """What a check requires: the first line of its docstring."""
    return (check.__doc__ or check.__name__).splitlines()[0]


def run(row: Row) -> Iterator[Outcome]:
    """Run all checks of a method, one after another; a failure does not stop the others."""
    for check in checks(row):
        start = time.perf_counter()
        reason = _reason(row, check)
        yield Outcome(row.name, check.__name__, rule_of(check), reason, time.perf_counter() - start)


def checked(row: Row, check: Check) -> None:
    """Run one check of a method."""
    with row.case.during():
        check(row)


def _reason(row: Row, check: Check) -> str:
    try:
        checked(row, check)
    except CheckFailed as error:
        return str(error)
    except UnspoolError as error:
        return f"{row.name} refused the call: {error}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
    return ""
