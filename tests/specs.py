"""Specs of methods from Python values, for tests that make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def spec(name: str, options: Mapping[str, Any] | None = None) -> str:
    """``name(option=value, ...)``."""
    if not options:
        return name
    return f"{name}({', '.join(f'{option}={value!r}' for option, value in options.items())})"


def canvas(names: str, options: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """Names joined by ``+``, each with its own options; what has options and is not named is added."""
    given = dict(options or {})
    parts = [spec(name, given.pop(name, None)) for name in names.split("+") if name]
    return "+".join([*parts, *(spec(name, values) for name, values in given.items())])
