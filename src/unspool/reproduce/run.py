"""Run an experiment case by case and save each case, so that the same command resumes after an interruption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unspool.bench.about import about, without_directories
from unspool.engine.progress import Progress, silent
from unspool.errors import UnspoolError
from unspool.reproduce.experiment import Experiment, Row
from unspool.reproduce.result import ExperimentResult, result_of
from unspool.reproduce.setup import Setup
from unspool.storage.journal import Journal

QUICK = 2
"""Number of prompts or questions of a quick run."""


def run(
    experiment: Experiment,
    setup: Setup,
    command: str,
    journal: Path | None = None,
    progress: Progress = silent,
) -> ExperimentResult:
    """Measure all cases.

    Args:
        journal: stores the rows of finished cases; removed at the end. None: nothing is stored.
        progress: receives the experiment's name, the number of finished cases, and the total.

    Raises:
        UnspoolError: if a package or a model is missing, a suite is given that the experiment does not use, or the
            journal belongs to other settings.
    """
    settings = {
        "model": setup.model,
        "count": setup.count,
        "suite": setup.suite and without_directories(setup.suite),
        "quick": setup.quick,
    }
    cases = experiment.cases(setup)
    if setup.suite is not None and not setup.suite_read:
        raise UnspoolError(f"{experiment.name} has questions of its own; leave --suite out")
    keys = [case.key for case in cases]
    if len(set(keys)) < len(keys):
        raise UnspoolError(f"two cases of {experiment.name} have the same key; give each its own")
    start = about()
    kept = Journal(journal, {"experiment": experiment.name, "settings": settings, "keys": keys}, "--output")
    try:
        if not kept.lines:
            kept.add({"about": start})
        rows: dict[str, Sequence[Row]] = {}
        for line in kept.lines:
            start = line.get("about", start)
            if "key" in line:
                rows[line["key"]] = line["rows"]
        for done, case in enumerate(cases):
            progress(experiment.name, done, len(cases))
            if case.key not in rows:
                rows[case.key] = [{"case": case.key, **row} for row in case.measure()]
                kept.add({"key": case.key, "rows": rows[case.key]})
        progress(experiment.name, len(cases), len(cases))
    finally:
        kept.close()
    flat: list[dict[str, Any]] = [row for key in keys for row in rows[key]]
    return result_of(experiment, settings, flat, start, command)
