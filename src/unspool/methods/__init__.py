"""The registry: which methods there are. A method is ``methods/<room>/<name>.py`` and holds ``METHOD``.

Names are those of the files; nothing is imported until a method is asked for. Third parties add theirs through the
entry-point group ``unspool.methods``: the entry's name is the method's, its value a ``Method``. One that cannot be
loaded stands in the way of nothing but itself: it is named when it is asked for, and in ``unavailable()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import Any

from unspool.engine.contracts import AcceptanceRule
from unspool.engine.method import ACCEPTANCE, KINDS, Kind, Method, Product, check
from unspool.engine.typed import values_of
from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError
from unspool.methods.resources import Resources

ROOMS = ("drafters", "acceptance", "batching", "shaping", "constraints", "sampling", "search", "cache", "diffusion")
"""Folders of methods, in the order in which they are listed."""

Row = Method[Any, Any]


@cache
def _places() -> Mapping[str, str | EntryPoint]:
    """Where each method is, by name: the module of a built-in one, the entry point of a third party's."""
    places: dict[str, str | EntryPoint] = {}
    for room in ROOMS:
        package = f"{__name__}.{room}"
        for module in iter_modules([f"{path}/{room}" for path in __path__]):
            if not module.name.startswith("_"):
                places[module.name] = f"{package}.{module.name}"
    for entry in entry_points(group="unspool.methods"):
        places.setdefault(entry.name, entry)
    return places


@cache
def _load(name: str) -> Row:
    place = _places()[name]
    if isinstance(place, str):
        return replace(import_module(place).METHOD, name=name)
    try:
        row = place.load()
    except Exception as error:
        raise UnspoolError(
            f"the installed method {name} ({place.value}) cannot be loaded: {type(error).__name__}: {error}; "
            "repair or uninstall that package"
        ) from error
    if not isinstance(row, Method):
        raise UnspoolError(
            f"the installed method {name} ({place.value}) is not a Method; repair or uninstall that package"
        )
    return replace(row, name=name)


def names() -> tuple[str, ...]:
    """Of all methods, built-in ones first. Imports none of them."""
    return tuple(_places())


def module_of(name: str) -> str:
    """The module that a method is in."""
    place = _places()[name]
    return place if isinstance(place, str) else place.module


def methods() -> dict[str, Row]:
    """All rows by name, but those of third parties that cannot be loaded, see ``unavailable``."""
    return {name: _load(name) for name in _places() if name not in unavailable()}


@cache
def unavailable() -> Mapping[str, str]:
    """Why installed methods of third parties cannot be used, by name."""
    found: dict[str, str] = {}
    for entry in entry_points(group="unspool.methods"):
        if _places()[entry.name] != entry:
            found[f"{entry.name} ({entry.value})"] = "its name is in use; rename the entry point"
            continue
        try:
            _load(entry.name)
        except UnspoolError as error:
            found[entry.name] = str(error)
    return found


def forget() -> None:
    """Look again at what is installed. For tests."""
    for cached in (_places, _load, unavailable):
        cached.cache_clear()


def find(name: str, kind: Kind[Product]) -> Method[Any, Product]:
    """The row of that name and kind.

    Raises:
        UnknownNameError: with the nearest name.
        UnsupportedError: if it is the name of another kind.
        UnspoolError: if it is a third party's and cannot be loaded.
    """
    if name not in _places():
        known = [row.name for row in methods().values() if row.kind is kind]
        raise UnknownNameError(kind.noun, name, known)
    row = _load(name)
    if row.kind is not kind:
        raise UnsupportedError(
            f"{name} is not a {kind.noun} but of kind {row.kind}; `unspool methods` lists what it is for"
        )
    return row


def of_kind(*kinds: Kind[Any]) -> list[Row]:
    """The rows of these kinds; of all, without any."""
    return [row for row in methods().values() if not kinds or row.kind in kinds]


def make_options(method: Row, values: Mapping[str, Any]) -> Any:
    """The method's options from keyword arguments, each as its declared type.

    Raises:
        UnknownNameError: for an option that the method does not have.
        UnspoolError: for a value that is not of the option's type, or that the method refuses.
    """
    known = [f.name for f in fields(method.options)]
    for name in values:
        if name not in known:
            raise UnknownNameError(f"option of {method.name}", name, known or ("(none)",))
    return method.options(**values_of(method.options, values))


def build(name: str, kind: Kind[Product], resources: Resources, values: Mapping[str, Any] | None = None) -> Product:
    """What a method makes for a request.

    Raises:
        UnspoolError: if there is no such method or option, or something that it needs is missing.
    """
    method = find(name, kind)
    options = make_options(method, values or {})
    check(method, resources)
    return method.build(resources, options)


def acceptance_rule(name: str | None, greedy: bool, resources: Resources) -> AcceptanceRule:
    """Build an acceptance rule; by default ``greedy`` at temperature 0 and ``same_noise`` above.

    Raises:
        UnsupportedError: if the rule and the temperature do not go together.
    """
    name = name or ("greedy" if greedy else "same_noise")
    check_acceptance(find(name, ACCEPTANCE), greedy)
    return build(name, ACCEPTANCE, resources)


def check_acceptance(method: Row, greedy: bool) -> None:
    """Raise an ``UnsupportedError`` if an acceptance rule and the temperature do not go together."""
    if method.at_temperature not in ("any", "greedy" if greedy else "sampled"):
        raise UnsupportedError(
            f"acceptance {method.name!r} is for temperature {'above 0' if greedy else '0'}; leave it out or change "
            "temperature"
        )


__all__ = [
    "KINDS",
    "ROOMS",
    "Kind",
    "Method",
    "Resources",
    "Row",
    "acceptance_rule",
    "build",
    "check",
    "check_acceptance",
    "find",
    "forget",
    "make_options",
    "methods",
    "module_of",
    "names",
    "of_kind",
    "unavailable",
]
