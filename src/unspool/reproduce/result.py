"""The result of an experiment as a file: claim, control, settings, rows, figures, outcome, machine and command."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from unspool.errors import UnspoolError
from unspool.reproduce.experiment import OUTCOMES, Experiment, Figure, Outcome, Row
from unspool.storage.output import save
from unspool.storage.text_files import parse_json, read_text


@dataclass(frozen=True)
class ExperimentResult:
    """The result of a run.

    Attributes:
        experiment: its name.
        about: date, machine, versions, see ``unspool.bench.about``.
        command: reproduces the result.
        settings: model, count, suite.
        claim, control, test, expects, requires: of the experiment, as stated when it ran.
        rows: of all cases.
        figures: by name.
    """

    experiment: str
    about: dict[str, Any]
    command: str
    settings: dict[str, Any]
    claim: str
    control: str
    test: str
    expects: list[str]
    requires: list[str]
    rows: list[Row]
    figures: dict[str, Figure]
    outcome: Outcome

    @property
    def file_name(self) -> str:
        """``NAME-MODEL.json``."""
        return file_name(self.experiment, self.settings["model"])


def file_name(experiment: str, model: str) -> str:
    """The file of an experiment's result on a model."""
    return f"{experiment}-{re.sub(r'[^a-z0-9.]+', '-', Path(model).name.lower()).strip('-.')}.json"


def result_of(
    experiment: Experiment, settings: dict[str, Any], rows: Sequence[Row], about: dict[str, Any], command: str
) -> ExperimentResult:
    """The figures and the outcome of the rows."""
    figures = experiment.summarise(rows).figures
    return ExperimentResult(
        experiment.name,
        about,
        command,
        settings,
        experiment.claim,
        experiment.control,
        experiment.test,
        [str(bound) for bound in experiment.expects],
        [str(bound) for bound in experiment.requires],
        list(rows),
        figures,
        experiment.outcome(figures),
    )


def write(result: ExperimentResult, path: Path) -> None:
    """Write a result atomically, with one line per row so that diffs are readable."""
    data = asdict(result)
    rows = data.pop("rows")
    head = json.dumps(data, indent=1, ensure_ascii=False)
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
    save(f'{head[:-2]},\n "rows": [\n{lines}\n ]\n}}\n', path)


def read(path: Path) -> ExperimentResult:
    """The result in a file.

    Raises:
        UnspoolError: if it cannot be read or is not one.
    """
    try:
        data = parse_json(read_text(path))
        data["figures"] = {name: Figure(**figure) for name, figure in data["figures"].items()}
        result = ExperimentResult(**data)
        if result.outcome not in OUTCOMES:
            raise ValueError(f"unknown outcome {result.outcome!r}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnspoolError(f"{path} is not the result of an experiment ({error}); run it again") from error
    return result


def worse(now: Outcome, before: Outcome) -> bool:
    """Whether an outcome is worse than an earlier one; a run without a verdict is worse than ``absent``."""
    order = cast("list[Outcome]", list(OUTCOMES))
    return order.index(now) > order.index(before)
