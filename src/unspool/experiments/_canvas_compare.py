"""Settings of canvas methods compared: beside one token a step, and with a control at equal passes.

A *line* is a method at several settings. Of each task the first half of the questions chooses a setting, the second
half is reported. At equal passes a setting is compared with a mixture of two settings of the control: each question is
given to one of the two by a coin, whose bias makes both sides take equally many passes on the first half. The control
is the best one: settings that another one beats on the first half, in fewer passes, are no part of a mixture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unspool.experiments._canvas import ONE_BY_ONE
from unspool.reproduce.experiment import Expect, Figure, Row, Table
from unspool.reproduce.statistics import difference, ratio

CASES = 200
"""Fewest reported questions of a comparison of accuracy."""
LOSS = 0.02
"""Of right answers that a setting may lose to one token a step on the first half to be chosen."""
USABLE = 0.1
"""Of right answers that a setting may lose to the control's best one to be compared at equal passes."""

PROTOCOL = (
    "the paper's setting beside one token a step; at equal passes, settings chosen on half of the questions and "
    "reported on the other"
)
"""How lines are compared, for an experiment's ``test``."""


@dataclass(frozen=True)
class Half:
    """What a setting did on half of the questions, those of all tasks in turn.

    Attributes:
        right: by question, 0 or 1; of a mixture the probability.
        passes: by question; of a mixture the expected number.
    """

    right: NDArray[np.float64]
    passes: NDArray[np.float64]

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def cost(self) -> float:
        """Mean passes."""
        return float(self.passes.mean())


@dataclass(frozen=True)
class Scored:
    """A setting, or a mixture of two.

    Attributes:
        setting: how it is called.
        first: the half of the questions that chooses.
        second: the half that is reported.
    """

    setting: str
    first: Half
    second: Half


def scored(rows: Sequence[Row], cost: str = "passes") -> dict[str, list[Scored]]:
    """The settings of each line.

    Args:
        cost: the column that counts as passes.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if "setting" in row:
            groups.setdefault((row["line"], row["setting"]), []).append(row)
    found: dict[str, list[Scored]] = {}
    for (line, setting), own in groups.items():
        right = [[float(digit) for digit in row["right"]] for row in own]
        passes = [[float(number) for number in row[cost].split()] for row in own]
        middle = -(-len(right[0]) // 2)
        halves = [
            Half(*(np.concatenate([values[part] for values in both]) for both in (right, passes)))
            for part in (slice(middle), slice(middle, None))
        ]
        found.setdefault(line, []).append(Scored(setting, *halves))
    return found


def within(line: Sequence[Scored], reference: Scored) -> Scored:
    """The setting of fewest passes that loses at most ``LOSS`` to the reference on the first half; without such a
    setting the most accurate one."""
    good = [s for s in line if s.first.accuracy >= reference.first.accuracy - LOSS - 1e-12]
    return min(good or line, key=lambda s: s.first.cost if good else -s.first.accuracy)


def mixed(control: Sequence[Scored], cost: float) -> Scored:
    """The control at this many passes on the first half; its nearest setting where it does not reach so far."""
    best: list[Scored] = []
    for setting in sorted(control, key=lambda s: (s.first.cost, -s.first.accuracy)):
        if not best or setting.first.accuracy > best[-1].first.accuracy:
            best.append(setting)
    above = next((i for i, setting in enumerate(best) if setting.first.cost >= cost), len(best) - 1)
    if above == 0 or best[above].first.cost <= cost:
        return best[above]
    low, high = best[above - 1], best[above]
    share = (cost - low.first.cost) / (high.first.cost - low.first.cost)
    halves = [
        Half(*(share * getattr(b, name) + (1 - share) * getattr(a, name) for name in ("right", "passes")))
        for a, b in ((low.first, high.first), (low.second, high.second))
    ]
    return Scored(f"{1 - share:.0%} {low.setting}, {share:.0%} {high.setting}", *halves)


def strongest(line: Sequence[Scored], control: Sequence[Scored]) -> Scored:
    """The setting that gains most over the control at equal passes on the first half, of those that are usable."""
    best = max(s.first.accuracy for s in control)
    usable = [s for s in line if s.first.accuracy >= best - USABLE] or [max(line, key=lambda s: s.first.accuracy)]
    return max(usable, key=lambda s: s.first.accuracy - mixed(control, s.first.cost).first.accuracy)


def gain(ours: str, control: str) -> str:
    """The name of the figure that ``compared`` gives."""
    return f"right, {ours} less {control}, equal passes"


def compared(found: Mapping[str, Sequence[Scored]], ours: str, control: str) -> dict[str, Figure]:
    """Right answers of a line less those of a control at equal passes, and the passes that each took."""
    one = strongest(found[ours], found[control])
    other = mixed(found[control], one.first.cost)
    return {
        gain(ours, control): difference(one.second.right.tolist(), other.second.right.tolist()),
        f"passes, {ours} / {control}": ratio(one.second.passes.tolist(), other.second.passes.tolist()),
    }


def kept(ours: str) -> str:
    """The name of the figure of right answers that ``against_reference`` gives."""
    return f"right, {ours} less {ONE_BY_ONE}"


def chosen(ours: str) -> str:
    """What ``against_reference`` calls a line at the setting that the first half of the questions chooses."""
    return f"{ours}, chosen setting"


def fewer(ours: str) -> str:
    """The name of the figure of passes that ``against_reference`` gives."""
    return f"passes, {ONE_BY_ONE} / {ours}"


def against_reference(
    found: Mapping[str, Sequence[Scored]], ours: str, setting: str | None = None
) -> dict[str, Figure]:
    """Right answers and passes of a line beside one token a step.

    Args:
        setting: the paper's; None where it has none that fits. Beside it the setting is reported that the first half
            chooses, which loses about ``LOSS`` by design: it takes the fewest passes that this loss allows.
    """
    reference = found[ONE_BY_ONE][0]
    settings = {chosen(ours): within(found[ours], reference)}
    if setting is not None:
        # A quick run has only some of the settings.
        own = next((one for one in found[ours] if one.setting == setting), found[ours][0])
        settings = {ours: own, **settings}
    figures: dict[str, Figure] = {}
    for name, one in settings.items():
        figures[kept(name)] = difference(one.second.right.tolist(), reference.second.right.tolist())
        figures[fewer(name)] = ratio(reference.second.passes.tolist(), one.second.passes.tolist())
    return figures


def lossless_and_fewer(ours: str, times: float, loss: float = 0.03) -> list[Expect]:
    """A line loses less than so much to one token a step, in so many times fewer passes."""
    claim = f"fewer passes without loss, {ours}"
    return [
        Expect(kept(ours), at_least=-loss, cases=CASES, together=claim),
        Expect(fewer(ours), at_least=times, cases=CASES, together=claim),
    ]


def better(ours: str, control: str) -> Expect:
    """A line gains a point or more over a control at equal passes."""
    return Expect(gain(ours, control), at_least=0.01, cases=CASES)


def table(found: Mapping[str, Sequence[Scored]], control: str, title: str = "reported half") -> Table:
    """All settings on the reported half, beside the control at equal passes."""
    rows = []
    for line, settings in found.items():
        for setting in settings:
            other = mixed(found[control], setting.first.cost)
            figures = (
                setting.second.cost,
                100 * setting.second.accuracy,
                100 * other.second.accuracy,
            )
            rows.append((f"{line}: {setting.setting}", *(f"{value:.1f}" for value in figures)))
    return Table(title, ("setting", "passes", "right, %", f"{control}, equal passes, %"), rows)
