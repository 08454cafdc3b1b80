"""An experiment: a paper's claim, the control that could win, and the expected figures, stated before the run.

An experiment is one file of ``unspool.experiments`` that defines ``EXPERIMENT``. It measures case by case. The figures
are computed from the rows of all cases, and the outcome from the figures, without human judgement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from unspool.reproduce.setup import Setup

Row = dict[str, Any]
"""The measurements of one case: plain data that JSON can store."""

Outcome = Literal["held", "partly", "absent", "not measurable here", "invalid"]

OUTCOMES: dict[Outcome, str] = {
    "held": "every expectation is met, over the whole of its 95 % interval",
    "partly": "some expectations are met",
    "absent": "no expectation is met: the effect is not shown here",
    "not measurable here": "the machine, the model or the number of cases does not allow a verdict",
    "invalid": "a requirement is broken, so that the figures mean nothing",
}
"""The meaning of each outcome, from best to worst."""


@dataclass(frozen=True)
class Figure:
    """A number computed from the rows.

    Attributes:
        value: the estimate.
        low, high: its 95 % interval; None without one, as for an exact count.
        count: number of cases that it is computed from.
    """

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3g}"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Expect:
    """Bounds that the whole interval of a figure must satisfy.

    Attributes:
        figure: its name in ``Summary.figures``.
        at_least, at_most: the bounds; both are part of the allowed range.
        cases: fewest cases from which the figure says anything.
        together: name of a claim that is met only if all of its bounds are, such as fewer passes without a loss of
            accuracy. Empty: the bound is a claim of its own.
    """

    figure: str
    at_least: float | None = None
    at_most: float | None = None
    cases: int = 0
    together: str = ""

    def __str__(self) -> str:
        parts = [f"at least {self.at_least:g}"] if self.at_least is not None else []
        parts += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        return f"{self.figure}: {' and '.join(parts)}"

    def enough(self, figure: Figure) -> bool:
        """Whether the figure has enough cases for a verdict."""
        return figure.count is None or figure.count >= self.cases

    def met(self, figure: Figure) -> bool:
        """Whether the whole interval is inside the bounds."""
        low = figure.value if figure.low is None else figure.low
        high = figure.value if figure.high is None else figure.high
        return (self.at_least is None or low >= self.at_least) and (self.at_most is None or high <= self.at_most)


@dataclass(frozen=True)
class Table:
    """A table of the result; the first column is text, the others are numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Summary:
    """The summary of the rows of all cases.

    Attributes:
        figures: by name, in display order.
        tables: shown beside the figures.
    """

    figures: dict[str, Figure]
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Case:
    """A part of an experiment that is measured as a whole, and saved once it is finished.

    Attributes:
        key: unique in the experiment, and the same in every run with the same settings.
        measure: returns the rows.
    """

    key: str
    measure: Callable[[], Sequence[Row]]


@dataclass(frozen=True)
class Experiment:
    """A claim and its test.

    Attributes:
        claim: the paper's claim, in one sentence.
        control: the alternative that could win.
        test: what is measured here, and on what, in one sentence.
        cases: the cases of a run, in the order of measurement. The first may load the model.
        summarise: figures and tables of all rows; called with the rows of any run, including quick ones.
        expects: the figures that the claim predicts.
        requires: conditions for the figures to be meaningful, such as identical texts.
        methods: names of the methods whose paper makes the claim.
        paper: title and year, if no method has that paper.
        model: the default model.
        count: the default number of prompts or questions.
        quick_model: for ``--quick``.
        timed: whether figures are times, so that the machine must be idle.
        minutes: approximate duration of a run on two cores.
    """

    claim: str
    control: str
    test: str
    cases: Callable[[Setup], Sequence[Case]]
    summarise: Callable[[Sequence[Row]], Summary]
    expects: Sequence[Expect]
    requires: Sequence[Expect] = ()
    methods: Sequence[str] = ()
    paper: str = ""
    model: str = "qwen2.5-coder-0.5b"
    count: int = 20
    quick_model: str = "smollm2-135m"
    timed: bool = False
    minutes: int = 10
    name: str = field(default="", kw_only=True)

    def outcome(self, figures: dict[str, Figure]) -> Outcome:
        """The verdict on the figures; a missing figure is not measurable."""
        broken = [bound for bound in self.requires if bound.figure in figures and not bound.met(figures[bound.figure])]
        if broken:
            return "invalid"
        judged = [b for b in self.expects if b.figure in figures and b.enough(figures[b.figure])]
        if len(judged) < len(self.expects) or any(bound.figure not in figures for bound in self.requires):
            return "not measurable here"
        claims: dict[str, bool] = {}
        for bound in judged:
            claim = bound.together or str(bound)
            claims[claim] = claims.get(claim, True) and bound.met(figures[bound.figure])
        return "held" if all(claims.values()) else "partly" if any(claims.values()) else "absent"
