"""Numbers of a JSON Schema, written so that llguidance reads them exactly (see ``schema_check``)."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from typing import Any

from unspool.errors import UnspoolError
from unspool.methods.constraints.grammar.schema_walk import types

_EXACT = 2**53
"""Floats represent every integer up to here."""
_ROUNDED = Context(prec=12, rounding=ROUND_CEILING)
"""Digits of bounds; llguidance loses digits beyond the 15th."""
_SMALL = Decimal("1e-9")
"""Bounds nearer to 0 than this are moved to it or to 0."""
_LONGEST = 2**63 - 1024
"""The largest integer that llguidance accepts as a bound."""
_TENTH = 22
"""Floats represent every power of ten up to here; llguidance reads a number as digits times such a power."""
_COUNTED = 100_000
"""Largest step that is counted exactly: there is one state per remainder."""
_POWERS = {10**6, 10**7, 10**8}
"""Larger steps that only require zeros at the end."""


def numbers(schema: dict[str, Any]) -> None:
    """Replace bounds and steps by ones that floats represent, within the given ones."""
    if not types(schema) & {"integer", "number"}:
        return
    whole = "number" not in types(schema)
    step = _step(schema) if "multipleOf" in schema else None
    low, high = (_bound(schema, side, whole) for side in ("minimum", "maximum"))
    if step is not None:
        # A number must be complete where no further digit may follow, which is impossible if it misses the step.
        far = _EXACT if step.denominator == 1 else _EXACT >> 12
        low, high = max(low, -far) if low is not None else -far, min(high, far) if high is not None else far
    if low is not None and high is not None and low > high:
        raise UnspoolError(f"no representable number is left between {low} and {high}; widen minimum and maximum")
    for side, bound in (("minimum", low), ("maximum", high)):
        if bound is not None:
            schema[side] = bound


def _step(schema: dict[str, Any]) -> Fraction:
    given = schema["multipleOf"]
    step = Fraction(given)
    if step != Fraction(repr(given)) or step.denominator > 1 << 12:
        raise UnspoolError(
            f"multipleOf {given} is not exact in floating point: to Python, 0.29 is not a multiple of 0.01; use "
            "integers of a smaller unit"
        )
    if step.numerator > _COUNTED and step.numerator not in _POWERS:
        raise UnspoolError(f"multipleOf {given} is too large; the limit is {_COUNTED:,}")
    if step.denominator == 1:
        schema["multipleOf"] = int(step)
    return step


def _bound(schema: dict[str, Any], side: str, whole: bool) -> int | float | None:
    """The tightest bound of a side, rounded inwards; removes ``exclusiveMinimum`` and the like."""
    up = 1 if side == "minimum" else -1
    exclusive = schema.pop("exclusive" + side.capitalize(), None)
    given = schema.pop(side, None)
    if isinstance(exclusive, bool):  # draft 4
        given, exclusive = (None, given) if exclusive else (given, None)
    bounds = [
        _inwards(value, up, whole, open_) for value, open_ in ((given, False), (exclusive, True)) if value is not None
    ]
    if not bounds:
        return None
    return max(bounds) if up > 0 else min(bounds)


def _inwards(value: float, up: int, whole: bool, is_open: bool) -> int | float:
    """The nearest representable bound on the inner side, counted in the direction ``up``."""
    exact = Fraction(repr(value)) * up  # as written: floats parsed from texts are compared with the float of this
    if whole:
        least = math.floor(exact) + 1 if is_open else math.ceil(exact)
        if least > _LONGEST:
            raise UnspoolError(f"no representable integer lies beyond {value}; bounds go up to 2 ** 63")
        if abs(least) > _EXACT:
            near = float(max(least, -_LONGEST))
            least = int(near if near >= least else math.nextafter(near, math.inf))
        return least * up
    if exact > _EXACT:
        raise UnspoolError(f"numbers beyond {value} cannot be enforced; bounds of numbers go up to 2 ** 53")
    edge = _ROUNDED.divide(Decimal(exact.numerator), Decimal(exact.denominator))
    if is_open and Fraction(edge) == exact:
        edge = edge.next_plus(_ROUNDED)
    if abs(edge) < _SMALL:
        edge = Decimal(0) if exact < 0 or (exact == 0 and not is_open) else _SMALL
    edge = max(edge, Decimal(-_EXACT))
    return (int(edge) if edge == int(edge) else float(edge)) * up


def exact_value(value: Any) -> Any:
    """A value of ``enum`` or ``const`` whose numbers llguidance reads exactly."""
    if isinstance(value, dict):
        return {name: exact_value(below) for name, below in value.items()}
    if isinstance(value, list):
        return [exact_value(below) for below in value]
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    if abs(value) > _EXACT:
        raise UnspoolError(f"the number {value} in const or enum is beyond 2 ** 53 and would be rounded; leave it out")
    if value == int(value):
        return int(value)
    _, digits, exponent = Decimal(repr(value)).as_tuple()
    if int("".join(map(str, digits))) > _EXACT or int(exponent) < -_TENTH:
        raise UnspoolError(f"the number {value} in const or enum has too many digits and would be rounded; shorten it")
    return value
