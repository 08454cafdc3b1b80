"""Options of a method: a frozen dataclass that derives from ``Options`` and declares the ranges of its fields.

Types and ranges are checked here, with one wording, for the command line, Python and specs; the docs show the same
ranges. A class of options checks only relations between its fields.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from unspool.engine.typed import settle
from unspool.errors import UnspoolError

_Value = TypeVar("_Value")
_RANGE, _CHECK = "range", "check"


@dataclass(frozen=True)
class Range:
    """The allowed range of a number; None: no bound on that side.

    Attributes:
        least, most: inclusive bounds.
        above, below: exclusive bounds.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        least, most, above, below = map(_shown, (self.least, self.most, self.above, self.below))
        if least and most:
            return f"in {least} to {most}"
        low = f"at least {least}" if least else f"above {above}" if above else ""
        high = f"at most {most}" if most else "finite" if below == "inf" else f"below {below}" if below else ""
        return " and ".join(filter(None, (low, high)))


def _shown(bound: float | None) -> str:
    """A bound as text; large powers of 2 are written as such."""
    if bound is None:
        return ""
    for offset, written in ((0, ""), (1, " - 1")):
        if isinstance(bound, int) and bound > 2**20 and (bound + offset).bit_count() == 1:
            return f"2^{(bound + offset).bit_length() - 1}{written}"
    return str(bound)


def option(
    default: _Value,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    check: Callable[[Any], object] | None = None,
) -> _Value:
    """A field of options: its default and the range of its values (None is always allowed).

    Args:
        check: called with a value other than None; raises an ``UnspoolError`` for an unusable one, such as a damaged
            file. Options are created before a model is loaded, so the error comes before any work.
    """
    bounds = (least, most, above, below)
    allowed = None if bounds == (None,) * 4 else Range(*bounds)
    made: Any = field(default=default, metadata={_RANGE: allowed, _CHECK: check})
    return made  # type: ignore[no-any-return]


def meanings(options: type[Any]) -> dict[str, str]:
    """Field descriptions from the docstrings of a class of options and of its base classes."""
    found: dict[str, str] = {}
    for kind in reversed(options.__mro__):
        _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
        for entry in re.split(r"\n(?=    \w)", section.split("\n\n")[0]) if section else ():
            names, _, text = entry.strip().partition(":")
            found |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return found


def range_of(declared: Field[Any]) -> Range | None:
    """The declared range of a field."""
    found: Range | None = declared.metadata.get(_RANGE)
    return found


class Options:
    """Base class of method options, which are frozen dataclasses."""

    def __post_init__(self) -> None:
        """Check types, then ranges, then each field's own check. A class with further checks calls this first.

        Raises:
            UnspoolError: with the option's name, the allowed values and the given value.
        """
        settle(self)
        for declared in fields(self):  # type: ignore[arg-type]
            allowed, value = range_of(declared), getattr(self, declared.name)
            values = value if isinstance(value, list | tuple) else () if value is None else (value,)
            if allowed is not None and (wrong := [one for one in values if one not in allowed]):
                verb = "lie" if str(allowed).startswith("in ") else "be"
                raise UnspoolError(f"{declared.name} must {verb} {allowed}, not {wrong[0]}")
            check = declared.metadata.get(_CHECK)
            if check is not None and value is not None:
                check(value)
