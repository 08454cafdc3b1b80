"""The page "What held here": each paper with its tested claim, the control, the outcome and its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unspool.reproduce.experiment import Experiment
from unspool.reproduce.result import ExperimentResult, read

UNTESTED = "not tested"


@dataclass(frozen=True)
class Held:
    """A line of the page.

    Attributes:
        paper: title and year; empty for an experiment about unspool itself.
        methods: its methods, by name.
        experiment: tests it; None if there is none.
        result: the last committed one; None if there is none.
    """

    paper: str
    methods: Sequence[str]
    experiment: Experiment | None
    result: ExperimentResult | None

    @property
    def outcome(self) -> str:
        return self.result.outcome if self.result else UNTESTED


def results(directory: Path) -> dict[str, list[ExperimentResult]]:
    """The results in a directory, by experiment."""
    found: dict[str, list[ExperimentResult]] = {}
    for path in sorted(directory.glob("*.json")):
        result = read(path)
        found.setdefault(result.experiment, []).append(result)
    return found


def held(
    papers: Mapping[str, str], experiments: Sequence[Experiment], found: Mapping[str, Sequence[ExperimentResult]]
) -> Iterator[Held]:
    """Lines of the page: first the papers in the order of their methods, then experiments without a paper.

    Args:
        papers: the paper of each method; methods without one are omitted.
        experiments: all of them.
        found: results, by experiment.
    """
    titles: dict[str, list[str]] = {}
    for method, paper in papers.items():
        titles.setdefault(paper, []).append(method)
    of_papers: dict[str, list[Experiment]] = {title: [] for title in titles}
    rest: list[Experiment] = []
    for experiment in experiments:
        own = dict.fromkeys(papers[method] for method in experiment.methods if method in papers)
        for title in [*own, *([experiment.paper] if experiment.paper else [])]:
            of_papers.setdefault(title, []).append(experiment)
        if not own and not experiment.paper:
            rest.append(experiment)
    for title, own_experiments in of_papers.items():
        if not own_experiments:
            yield Held(title, titles.get(title, ()), None, None)
        for experiment in own_experiments:
            yield from _lines(title, titles.get(title, ()), experiment, found)
    for experiment in rest:
        yield from _lines("", (), experiment, found)


def _lines(
    title: str, methods: Sequence[str], experiment: Experiment, found: Mapping[str, Sequence[ExperimentResult]]
) -> Iterator[Held]:
    own = found.get(experiment.name, ())
    for result in own:
        yield Held(title, methods, experiment, result)
    if not own:
        yield Held(title, methods, experiment, None)
