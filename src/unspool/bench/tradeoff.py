"""Accuracy against the number of passes, for methods at swept settings: what parallel unmasking costs in quality.

The tasks are those that the model was trained on, the questions are held out, and every method answers the same ones.
ParallelBench (2025) gives the idea and the *oracle*: of the settings of plain threshold decoding, each question gets
the one of fewest passes that is right, which no method knows beforehand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from unspool.decoding.canvas import DiffusionModel
from unspool.recipes.tiny_diffusion.tasks import Task, TaskSet, held_out

ORACLE = "oracle"
REFERENCE = "top_k"
"""One token a step by confidence: what the number of passes is compared with."""

Options = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """A point of a method's frontier.

    Attributes:
        line: what the points of one curve have in common.
        method, options: as ``DiffusionModel.generate`` takes them.
    """

    line: str
    method: str
    options: Options


@dataclass(frozen=True)
class Point:
    """What a setting did on one task.

    Attributes:
        line, method, options: of the setting; an oracle has no options.
        task: name.
        dependent: whether several answers are right, see ``tasks``.
        right: by question.
        passes: by question.
        commits: how many passes filled this many slots.
    """

    line: str
    method: str
    options: Options
    task: str
    dependent: bool
    right: list[bool]
    passes: list[int]
    commits: dict[int, int]


@dataclass(frozen=True)
class Frontier:
    """All points of one model.

    Attributes:
        about: machine, versions, date, load average.
        command: the command line that made it.
        model: name.
        slots: of a canvas: passes of one token a step.
        points: of every setting on every task.
    """

    about: dict[str, Any]
    command: str
    model: str
    slots: int
    points: list[Point] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "frontier", "version": 1, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Frontier:
        # JSON's keys are text.
        points = [Point(**{**p, "commits": {int(n): c for n, c in p["commits"].items()}}) for p in data["points"]]
        return cls(data["about"], data["command"], data["model"], data["slots"], points)


def swept(newlines: bool, trained: bool) -> list[Setting]:
    """The settings that are measured by default: every registered part, at the values that its card names and around.

    Args:
        newlines: whether texts of the tasks have several lines, for blocks that end with them.
        trained: whether the model has a filter for blocks of 8 beside it.
    """
    thresholds = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
    found = [Setting("top_k", "top_k", {"top_k": {"tokens_per_step": k}}) for k in (1, 2, 3, 4, 6, 8, 12)]
    found += [
        Setting("top_k, random order", "top_k", {"top_k": {"tokens_per_step": k, "order": "random"}})
        for k in (1, 2, 3, 4, 6, 8, 12)
    ]
    found += [Setting("threshold", "threshold", {"threshold": {"threshold": t}}) for t in thresholds]
    found += [Setting("factor", "factor", {"factor": {"factor": f}}) for f in (0.1, 0.25, 0.5, 1.0, 1.5, 2.0)]
    found += [
        Setting("entropy_threshold", "entropy_threshold", {"entropy_threshold": {"threshold": h}})
        for h in (0.05, 0.1, 0.2, 0.5, 1.0)
    ]
    found += [Setting("eb_sampler", "eb_sampler", {"eb_sampler": {"gamma": g}}) for g in (0.0, 0.01, 0.1, 0.5, 1.0)]
    found += [
        Setting("localleap", "localleap", {"localleap": {"threshold": t, "relaxed_threshold": r}})
        for t, r in ((0.95, 0.8), (0.9, 0.75), (0.9, 0.5), (0.8, 0.5))
    ]
    for name, options in (
        ("credit", {}),
        ("credit, sparse", {"kept": 8}),
        ("credit, parameter-free", {"parameter_free": True}),
    ):
        found += [
            Setting(name, "credit+threshold", {"credit": options, "threshold": {"threshold": t}}) for t in thresholds
        ]
    found += [
        Setting(f"threshold, blocks of {b}", "fixed_blocks+threshold", {"fixed_blocks": {"block_length": b}, **v})
        for b in (8, 12)
        for v in ({"threshold": {"threshold": t}} for t in thresholds)
    ]
    found += [
        Setting("prophet", "prophet+top_k", {"prophet": {"high": 7.5 * f, "middle": 5.0 * f, "low": 2.5 * f}})
        for f in (2.0, 1.0, 0.5, 0.25)
    ]
    found += [Setting("static_stop", "static_stop+top_k", {"static_stop": {"passes": n}}) for n in (2, 4, 8, 16)]
    if trained:
        found += [
            Setting(
                "learn2pd, blocks of 8",
                "fixed_blocks+learn2pd",
                {"fixed_blocks": {"block_length": 8}, "learn2pd": {"threshold": t}},
            )
            for t in thresholds
        ]
    if newlines:
        found += [Setting("adablock", "adablock+threshold", {"threshold": {"threshold": t}}) for t in thresholds]
    return found


def measure(
    model: DiffusionModel,
    tasks: TaskSet,
    settings: Sequence[Setting],
    questions: int,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> list[Point]:
    """Let every setting answer the same held-out questions.

    Args:
        questions: of each task.
    """
    points = []
    for done, setting in enumerate(settings):
        progress("settings", done, len(settings))
        points += [_point(model, tasks, task, setting, questions) for task in tasks.tasks]
    progress("settings", len(settings), len(settings))
    return points + oracle(points)


def _point(model: DiffusionModel, tasks: TaskSet, task: Task, setting: Setting, questions: int) -> Point:
    examples = held_out(task, questions)
    options = setting.options
    if "prophet" in options and task.answer is not None:
        options = options | {"prophet": options["prophet"] | {"answer": task.answer}}
    results = model.generate(
        [tasks.prompt_ids(example.prompt) for example in examples], method=setting.method, method_options=options
    )
    return Point(
        setting.line,
        setting.method,
        setting.options,
        task.name,
        task.dependent,
        [task.right(e, tasks.answer_of(r.token_ids)) for e, r in zip(examples, results, strict=True)],
        [result.statistics.passes for result in results],
        dict(sorted(Counter(n for result in results for n in result.statistics.commits).items())),
    )


def oracle(points: Sequence[Point]) -> list[Point]:
    """The oracle's point of every task: fewest passes of plain thresholds that are right, else fewest passes."""
    made = []
    swept = [point for point in points if point.line == "threshold"]
    for task in dict.fromkeys(point.task for point in swept):
        own = [point for point in swept if point.task == task]
        right = [any(answers) for answers in zip(*(point.right for point in own), strict=True)]
        passes = [
            min(n for n, ok in zip(column, answers, strict=True) if ok or not any(answers))
            for column, answers in zip(
                zip(*(point.passes for point in own), strict=True),
                zip(*(point.right for point in own), strict=True),
                strict=True,
            )
        ]
        made.append(Point(ORACLE, ORACLE, {}, task, own[0].dependent, right, passes, {}))
    return made


@dataclass(frozen=True)
class Mean:
    """A setting over several tasks, each of which counts the same.

    Attributes:
        accuracy: share of right answers, 0 to 1.
        passes: per question.
        commits: how many passes filled this many slots.
    """

    line: str
    method: str
    options: Options
    accuracy: float
    passes: float
    commits: dict[int, int]


def means(points: Sequence[Point], dependent: bool) -> list[Mean]:
    """Every setting over the tasks that are, or are not, dependent."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        if point.dependent == dependent:
            groups.setdefault(f"{point.line} {point.method} {point.options}", []).append(point)
    found = []
    for group in groups.values():
        commits: Counter[int] = Counter()
        for point in group:
            commits.update(point.commits)
        found.append(
            Mean(
                group[0].line,
                group[0].method,
                group[0].options,
                float(np.mean([np.mean(point.right) for point in group])),
                float(np.mean([np.mean(point.passes) for point in group])),
                dict(sorted(commits.items())),
            )
        )
    return found


def best(found: Sequence[Mean], loss: float) -> dict[str, Mean]:
    """Of every line the point of fewest passes that loses at most ``loss`` of the reference's accuracy.

    The reference is one token a step by confidence; lines without such a point are left out.
    """
    reference = next(m for m in found if m.line == REFERENCE and m.options["top_k"]["tokens_per_step"] == 1)
    kept: dict[str, Mean] = {}
    for mean in sorted(found, key=lambda m: m.passes, reverse=True):
        if mean.accuracy >= reference.accuracy - loss - 1e-12:
            kept[mean.line] = mean
    return kept
