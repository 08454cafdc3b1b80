"""The setup of an experiment: its model, its prompts, and their number."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from unspool import suites
from unspool.decoding.canvas import DiffusionModel
from unspool.decoding.load import load
from unspool.decoding.model import Model
from unspool.suites.prompts import Prompt


@dataclass
class Setup:
    """The settings of a run, and the models loaded for it.

    Attributes:
        model: name of the model.
        count: number of prompts or questions; the experiment decides which.
        quick: whether the run only shows that the experiment works: fewest cases, shortest texts.
        suite: prompts given by the user, see ``suites.load``; None: the experiment's own.
        report: receives each step as one line.
        suite_read: whether the experiment has read the prompts of ``suite``.
    """

    model: str
    count: int
    quick: bool = False
    suite: str | None = None
    report: Callable[[str], None] = lambda message: None
    suite_read: bool = False
    _loaded: dict[Any, Any] = field(default_factory=dict)

    def pick(self, full: Any, quick: Any) -> Any:
        """Choose a setting: one for the full run, one for ``--quick``."""
        return quick if self.quick else full

    def language_model(self, name: str | None = None, **options: Any) -> Model:
        """A language model, loaded once.

        Args:
            name: of the model; None: the run's.
            options: of ``unspool.load``.
        """
        model: Model = self._once(Model, name, options)
        return model

    def diffusion_model(self, name: str | None = None, **options: Any) -> DiffusionModel:
        """A masked-diffusion model, loaded once; arguments as of ``language_model``."""
        model: DiffusionModel = self._once(DiffusionModel, name, options)
        return model

    def _once(self, kind: type[Any], name: str | None, options: dict[str, Any]) -> Any:
        key = (kind, name or self.model, *sorted(options.items()))
        if key not in self._loaded:
            self._loaded[key] = load(name or self.model, expect=kind, report=self.report, **options)
        return self._loaded[key]

    def prompts(self, suite: str = "humaneval", quick_suite: str = "mixed") -> list[Prompt]:
        """``count`` prompts in rounds of one per category, drawn with seed 0.

        Args:
            suite: the default suite.
            quick_suite: the default for ``--quick``; a bundled one, so that no package is needed.
        """
        self.suite_read = True
        loaded = suites.load(self.suite or (quick_suite if self.quick else suite))
        return suites.rounds(loaded.prompts, random.Random("0 experiment"))[: self.count]
