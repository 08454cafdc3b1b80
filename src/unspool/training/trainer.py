"""What ``unspool train NAME`` runs: options, what is refused before work, and the work.

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
        source: directory of the masked-diffusion model that is trained for; None where it is none.
        threads: of torch; None: the trainer's own number.
    """

    output: Path
    source: Path | None = None
    threads: int | None = None

    @property
    def model(self) -> Path:
        """The source, where the trainer is for one."""
        assert self.source is not None, "see Trainer.trains_for"
        return self.source


@dataclass(frozen=True)
class Report:
    """What a training gave.

    Attributes:
        figures: plain data, for ``--json``.
        lines: for a terminal.
    """

    figures: Any
    lines: Sequence[str]


Run = Callable[["Model | None", Progress], Report]
"""The work: takes the loaded model (None where it is a directory, or there is none)."""


@dataclass(frozen=True)
class Trainer(Generic[Options]):
    """How something is trained.

    Attributes:
        summary: what is trained, one sentence.
        options: frozen dataclass.
        prepare: reads what the options name and refuses what cannot work, before a model is loaded; gives the work.
        trains_for: what must be named: a language model, one with its draft model, the directory of a masked-diffusion
            model, or nothing.
        example: options without which it cannot run, as the method's page shows them: ``prompts=prompts.jsonl``.
        beside: whether the result is written beside the model where no output is named.
    """

    summary: str
    options: type[Options]
    prepare: Callable[[Job, Options], Run]
    trains_for: Literal["model", "pair", "canvas", "nothing"] = "model"
    example: str = ""
    beside: bool = False
