"""The trainer that ``unspool train NAME`` runs: its options, its checks before any work, and the work.

A method's row names a module with a ``TRAINER`` (``Method.trainer``), which nothing else loads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from unspool.engine.progress import Progress

if TYPE_CHECKING:
    from unspool.decoding.model import Model

Options = TypeVar("Options")


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        output: directory for data, state and result; an interrupted training resumes from it.
        source: directory of the masked-diffusion model to train for; None if the trainer is not for one.
        threads: of torch; None: the trainer's default.
    """

    output: Path
    source: Path | None = None
    threads: int | None = None

    @property
    def model(self) -> Path:
        """The source, if the trainer is for a masked-diffusion model."""
        assert self.source is not None, "see Trainer.trains_for"
        return self.source


@dataclass(frozen=True)
class Report:
    """The outcome of a training.

    Attributes:
        figures: plain data, for ``--json``.
        lines: for a terminal.
    """

    figures: Any
    lines: Sequence[str]


Run = Callable[["Model | None", Progress], Report]
"""The training itself: takes the loaded model (None for a directory, or without a model)."""


@dataclass(frozen=True)
class Trainer(Generic[Options]):
    """A training recipe.

    Attributes:
        summary: what is trained, one sentence.
        options: frozen dataclass.
        prepare: reads and checks everything that the options name, before a model is loaded; returns the training.
        trains_for: what must be given: a language model, one with its draft model, the directory of a masked-diffusion
            model, or nothing.
        example: required options, for the method's page: ``prompts=prompts.jsonl``.
        beside: whether the result is written beside the model if no output is given.
    """

    summary: str
    options: type[Options]
    prepare: Callable[[Job, Options], Run]
    trains_for: Literal["model", "pair", "canvas", "nothing"] = "model"
    example: str = ""
    beside: bool = False
