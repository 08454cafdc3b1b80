"""Experiments, one file per claim. Each defines ``EXPERIMENT`` and has the file's name. Helpers begin with ``_``."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules

from unspool.errors import UnknownNameError
from unspool.reproduce.experiment import Experiment


def names() -> list[str]:
    """The names of all experiments. Imports none of them."""
    return sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        UnknownNameError: with the nearest name.
    """
    if name not in names():
        raise UnknownNameError("experiment", name, names())
    experiment: Experiment = import_module(f"{__name__}.{name}").EXPERIMENT
    return replace(experiment, name=name)
