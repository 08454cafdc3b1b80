"""The options of every registered method: frozen, with defaults, and mistakes in their names are told."""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, fields, is_dataclass

import pytest

from tests.conformance.cases import CASES, case
from unspool import methods
from unspool.errors import UnknownNameError, UnspoolError
from unspool.methods import Method

ROWS = [pytest.param(row, id=name) for name, row in methods.methods().items()]


def test_every_case_is_of_a_row() -> None:
    assert CASES.keys() <= methods.methods().keys()


@pytest.mark.parametrize("row", ROWS)
def test_options_are_frozen_and_have_defaults(row: Method) -> None:
    assert is_dataclass(row.options)
    for option in fields(row.options):
        assert option.default is not MISSING or option.default_factory is not MISSING, f"{option.name} has no default"
    try:
        made = methods.make_options(row, {})
    except UnspoolError as error:
        # Something must be given that has no good default; then the message names it.
        assert any(option.name in str(error) for option in fields(row.options))
        made = methods.make_options(row, case(row).options)
    else:
        assert made == row.options()
    for option in fields(row.options):
        with pytest.raises(FrozenInstanceError):
            setattr(made, option.name, None)


@pytest.mark.parametrize("row", ROWS)
def test_an_unknown_option_is_refused_with_the_nearest_name(row: Method) -> None:
    names = {option.name for option in fields(row.options)}
    for name in names:
        wrong = f"{name}_"
        with pytest.raises(UnknownNameError, match=f"unknown option of {row.name} '{wrong}'; did you mean '{name}'"):
            methods.make_options(row, {wrong: None})
    with pytest.raises(UnknownNameError, match="known: " if names else r"\(none\)"):
        methods.make_options(row, {"\0": None})
