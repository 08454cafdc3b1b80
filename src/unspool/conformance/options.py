"""Checks of the options of a method of any kind."""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, fields, is_dataclass

from unspool import methods
from unspool.conformance.check import Row, options_of, require
from unspool.engine.method import GUARANTEES
from unspool.errors import UnknownNameError, UnspoolError


def row_is_whole(row: Row) -> None:
    """The row has a summary, a guarantee and a paper."""
    require(row.guarantee in GUARANTEES, f"guarantee {row.guarantee!r} is not one of {', '.join(GUARANTEES)}")
    require(row.summary.strip() and "\n" not in row.summary, "summary must be one line")
    require(row.paper.strip(), 'paper is empty; write the title and the year, or "none"')


def options_are_frozen_with_defaults(row: Row) -> None:
    """Options are a frozen dataclass in which every field has a default."""
    require(is_dataclass(row.options), f"options must be a dataclass, not {row.options!r}")
    for option in fields(row.options):
        given = option.default is not MISSING or option.default_factory is not MISSING
        require(given, f"the option {option.name} has no default")
    try:
        made = methods.make_options(row, {})
    except UnspoolError as error:
        named = any(option.name in str(error) for option in fields(row.options))
        require(named, f"without options the message should name the option that is missing, not {str(error)!r}")
        made = methods.make_options(row, options_of(row))
    for option in fields(row.options):
        try:
            setattr(made, option.name, None)
        except FrozenInstanceError:
            continue
        require(False, f"{row.options.__name__} is not frozen; write @dataclass(frozen=True)")


def unknown_options_are_refused(row: Row) -> None:
    """An unknown option is rejected with the nearest name."""
    for option in fields(row.options):
        try:
            methods.make_options(row, {f"{option.name}_": None})
        except UnknownNameError as error:
            require(f"did you mean '{option.name}'" in str(error), str(error))
        else:
            require(False, f"{option.name}_ was taken for an option")


CHECKS = (row_is_whole, options_are_frozen_with_defaults, unknown_options_are_refused)
