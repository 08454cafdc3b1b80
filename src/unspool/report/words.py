"""Formats figures: numbers with a fixed number of digits, spreads, shares, nested facts as lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unspool.bench.result import Spread

NONE = "–"


def number(value: float | None, digits: int = 2) -> str:
    """With thin spaces between thousands, which no language reads as a decimal sign."""
    return NONE if value is None else f"{value:,.{digits}f}".replace(",", "\u202f")


def times(value: float) -> str:
    return f"{number(value)} ×"


def share(value: float | None, digits: int = 1) -> str:
    """0.25 is "25.0 %"."""
    return NONE if value is None else f"{100 * value:.{digits}f}\u202f%"


def small(value: float | None) -> str:
    """A number of any magnitude, such as noise or a p-value: three significant digits."""
    return NONE if value is None else f"{value:.3g}"


def quartiles(spread: Spread | None, digits: int = 2) -> str:
    return NONE if spread is None else f"{number(spread.low, digits)} to {number(spread.high, digits)}"


def counted(n: int, one: str) -> str:
    """``counted(2, "tie")`` is "2 ties"."""
    return f"{number(n, 0)} {one}{'' if n == 1 else 's'}"


def joined(parts: Sequence[str]) -> str:
    """As in a sentence: "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def facts(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as lines of a name and a value: ``{"machine": {"cpu": "x"}}`` is ``("machine: cpu", "x")``."""
    for name, value in data.items():
        label = f"{above}{str(name).replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from facts(value, f"{label}: ")
        elif isinstance(value, float):
            yield label, f"{value:.6g}"
        elif isinstance(value, list | tuple):
            yield label, ", ".join(str(item) for item in value) or NONE
        else:
            yield label, NONE if value is None else str(value)
