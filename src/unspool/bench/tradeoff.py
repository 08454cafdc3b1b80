"""Accuracy against number of passes, for methods at swept settings: what parallel unmasking costs in quality.

The tasks are those that the model was trained on; the questions are held out and the same for every method.
ParallelBench (2025) is the source of the idea and of the *oracle*: for each question, the plain threshold setting with
the fewest passes among those that answer it correctly, which no method can know beforehand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from unspool import methods
from unspool.decoding.canvas import DiffusionModel
from unspool.engine.method import UNMASK
from unspool.engine.progress import Progress, silent
from unspool.errors import UnspoolError
from unspool.methods._compose import chosen, composed, written
from unspool.methods.spec import parse
from unspool.recipes.tiny_diffusion.tasks import Task, TaskSet, held_out

ORACLE = "oracle"
REFERENCE = parse(methods.ONE_BY_ONE).name
"""The line of one token per step by confidence: the reference for the number of passes."""


@dataclass(frozen=True)
class Setting:
    """A point of the chart.

    Attributes:
        line: the curve that the point belongs to.
        method: spec for ``DiffusionModel.generate``.
    """

    line: str
    method: str


@dataclass(frozen=True)
class Point:
    """The results of a setting on one task.

    Attributes:
        line: of the setting.
        method: canonical spec of the setting; empty for an oracle, which uses a different one for each question.
        task: name.
        dependent: whether several answers are right, see ``tasks``.
        right: per question.
        passes: per question.
        commits: number of passes by number of slots filled.
    """

    line: str
    method: str
    task: str
    dependent: bool
    right: list[bool]
    passes: list[int]
    commits: dict[int, int]


@dataclass(frozen=True)
class Tradeoff:
    """The points of one model.

    Attributes:
        about: machine, versions, date, load average.
        command: the command line that made it.
        model: its name.
        slots: of a canvas; the number of passes at one token per step.
        points: every setting on every task.
    """

    about: dict[str, Any]
    command: str
    model: str
    slots: int
    points: list[Point] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "tradeoff", "version": 2, **asdict(self)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tradeoff:
        if data["version"] == 1:
            data = _of_version_1(data)
        # JSON keys are text.
        points = [Point(**{**p, "commits": {int(n): c for n, c in p["commits"].items()}}) for p in data["points"]]
        return cls(data["about"], data["command"], data["model"], data["slots"], points)


def _of_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """The same with a spec in place of names and options, and with the command's present name."""
    points = [dict(point) for point in data["points"]]
    for point in points:
        options = point.pop("options")
        point["method"] = "" if point["line"] == ORACLE else _joined(point["method"], options)
    return data | {"points": points, "command": data["command"].replace("unspool frontier", "unspool tradeoff", 1)}


def _joined(names: str, options: Mapping[str, Mapping[str, Any]]) -> str:
    """The spec of names joined by ``+``, with the options of each."""
    parts = [part.row for part in chosen(names)]
    return "+".join(methods.choose(row.name, row.kind, options.get(row.name)).spec for row in parts)


def swept() -> list[Setting]:
    """The default settings: those named by the rows of all parts of the denoise loop.

    The reference comes first.
    """
    rows = methods.of_kind(*(kind for kind in methods.KINDS.values() if kind.on_canvas))
    found = []
    for row in sorted(rows, key=lambda row: row.name != REFERENCE):
        lines = row.sweep or {row.name: (methods.choose(row.name, row.kind, row.trial).spec,)}
        found += [Setting(line, written(spec)) for line, specs in lines.items() for spec in specs]
    return found


def picked(wanted: Sequence[str]) -> list[Setting]:
    """The swept settings of some lines, the reference included.

    Args:
        wanted: prefixes of lines; any other text is a spec, measured as its own line.

    Raises:
        UnspoolError: if it does not name a method.
    """
    every = swept()
    found = [setting for setting in every if setting.line.startswith((REFERENCE, *wanted))]
    own = [text for text in wanted if not any(setting.line.startswith(text) for setting in every)]
    return found + [Setting(text, written(text)) for text in own]


def left_out(settings: Sequence[Setting], model: DiffusionModel) -> dict[str, str]:
    """Lines with a part that does not fit the model, such as one that must be trained for it, with the reason."""
    found: dict[str, str] = {}
    for setting in settings:
        try:
            parts = composed(setting.method, model.resources())()
            parts.schedule.check(model.canvas_length)
            if parts.stop is not None:
                parts.stop.check(model.canvas_length)
        except UnspoolError as error:
            found.setdefault(setting.line, str(error))
    return found


def measure(
    model: DiffusionModel,
    tasks: TaskSet,
    settings: Sequence[Setting],
    questions: int,
    progress: Progress = silent,
) -> list[Point]:
    """Measure every setting on the same held-out questions.

    Args:
        questions: number per task.
    """
    points = []
    for done, setting in enumerate(settings):
        progress("settings", done, len(settings))
        points += [_point(model, tasks, task, setting, questions) for task in tasks.tasks]
    progress("settings", len(settings), len(settings))
    return points + oracle(points)


def _point(model: DiffusionModel, tasks: TaskSet, task: Task, setting: Setting, questions: int) -> Point:
    examples = held_out(task, questions)
    method = setting.method if task.answer is None else _answering(setting.method, task.answer)
    results = model.generate([tasks.prompt_ids(example.prompt) for example in examples], method=method)
    return Point(
        setting.line,
        written(setting.method),
        task.name,
        task.dependent,
        [task.right(e, tasks.answer_of(r.token_ids)) for e, r in zip(examples, results, strict=True)],
        [result.statistics.passes for result in results],
        dict(sorted(Counter(n for result in results for n in result.statistics.commits).items())),
    )


def _answering(method: str, answer: tuple[int, int]) -> str:
    """The method, with the task's ``answer`` for every part that has such an option and no value for it."""
    parts = [
        replace(part, options=replace(part.options, answer=answer))
        if getattr(part.options, "answer", answer) is None
        else part
        for part in chosen(method)
    ]
    return "+".join(part.spec for part in parts)


def oracle(points: Sequence[Point]) -> list[Point]:
    """The oracle's point of every task: the fewest passes of a right plain threshold setting, else of any."""
    made = []
    plain = [point for point in points if point.line == methods.DEFAULTS[UNMASK]]
    for task in dict.fromkeys(point.task for point in plain):
        own = [point for point in plain if point.task == task]
        right = [any(answers) for answers in zip(*(point.right for point in own), strict=True)]
        passes = [
            min(n for n, ok in zip(column, answers, strict=True) if ok or not any(answers))
            for column, answers in zip(
                zip(*(point.passes for point in own), strict=True),
                zip(*(point.right for point in own), strict=True),
                strict=True,
            )
        ]
        made.append(Point(ORACLE, "", task, own[0].dependent, right, passes, {}))
    return made


@dataclass(frozen=True)
class Mean:
    """A setting averaged over several tasks with equal weights.

    Attributes:
        accuracy: share of right answers, 0 to 1.
        passes: per question.
        commits: number of passes by number of slots filled.
    """

    line: str
    method: str
    accuracy: float
    passes: float
    commits: dict[int, int]


def means(points: Sequence[Point], dependent: bool) -> list[Mean]:
    """Every setting averaged over the dependent tasks, or over the others."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        if point.dependent == dependent:
            groups.setdefault(f"{point.line} {point.method}", []).append(point)
    found = []
    for group in groups.values():
        commits: Counter[int] = Counter()
        for point in group:
            commits.update(point.commits)
        found.append(
            Mean(
                group[0].line,
                group[0].method,
                float(np.mean([np.mean(point.right) for point in group])),
                float(np.mean([np.mean(point.passes) for point in group])),
                dict(sorted(commits.items())),
            )
        )
    return found


def best(found: Sequence[Mean], loss: float) -> dict[str, Mean]:
    """Per line, the point with the fewest passes that loses at most ``loss`` of the reference's accuracy.

    The reference is one token per step by confidence. Lines without such a point are left out.
    """
    one_by_one = written(methods.ONE_BY_ONE)
    reference = next(m for m in found if m.method == one_by_one)
    kept: dict[str, Mean] = {}
    for mean in sorted(found, key=lambda m: m.passes, reverse=True):
        if mean.accuracy >= reference.accuracy - loss - 1e-12:
            kept[mean.line] = mean
    return kept
