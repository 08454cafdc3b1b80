"""Options of a method: a frozen dataclass of ``Options`` whose ranges stand at its fields.

One place gives every value its declared type and checks its range, with one wording, for the command line, Python and
specs alike; the docs read the same ranges. A class of options checks only what relates two of its fields.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from unspool.engine.typed import settle
from unspool.errors import UnspoolError

_Value = TypeVar("_Value")
_RANGE, _CHECK = "range", "check"


@dataclass(frozen=True)
class Range:
    """What a number may be; None: no bound on that side.

    Attributes:
        least, most: bounds that are allowed themselves.
        above, below: bounds that are not.
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
        low = None if self.least is None else f"at least {self.least}"
        low = low or (None if self.above is None else f"above {self.above}")
        high = None if self.most is None else f"at most {self.most}"
        high = high or (None if self.below is None else f"below {self.below}")
        if self.least is not None and self.most is not None:
            return f"in {self.least} to {self.most}"
        return " and ".join(filter(None, (low, high)))


def option(
    default: _Value,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    check: Callable[[Any], object] | None = None,
) -> _Value:
    """A field of options: its default, and the range of its values (None is in every range).

    Args:
        check: called with a value that is not None; raises an ``UnspoolError`` for one that cannot be used, such as a
            file that is damaged. Options are made before a model is loaded, so that is when a user hears of it.
    """
    bounds = (least, most, above, below)
    allowed = None if bounds == (None,) * 4 else Range(*bounds)
    made: Any = field(default=default, metadata={_RANGE: allowed, _CHECK: check})
    return made  # type: ignore[no-any-return]


def range_of(declared: Field[Any]) -> Range | None:
    """The range that a field was declared with."""
    found: Range | None = declared.metadata.get(_RANGE)
    return found


class Options:
    """Base of frozen dataclasses of options."""

    def __post_init__(self) -> None:
        """Types, then ranges and checks; a class that relates two fields calls this first.

        Raises:
            UnspoolError: with the option's name, what it takes and what was given.
        """
        settle(self)
        for declared in fields(self):  # type: ignore[arg-type]
            allowed, value = range_of(declared), getattr(self, declared.name)
            if allowed is not None and value is not None and value not in allowed:
                verb = "lie" if str(allowed).startswith("in ") else "be"
                raise UnspoolError(f"{declared.name} must {verb} {allowed}, not {value}")
            check = declared.metadata.get(_CHECK)
            if check is not None and value is not None:
                check(value)
