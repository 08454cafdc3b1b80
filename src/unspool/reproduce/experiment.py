"""What an experiment is: a paper's claim, the control that could have won, and what is expected, stated before the run.

An experiment is one file of ``unspool.experiments`` that holds ``EXPERIMENT``. It measures case by case; the figures
are computed from the rows of all cases, and the outcome from the figures: no person decides it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from unspool.reproduce.setup import Setup

Row = dict[str, Any]
"""What one case measured: plain data that JSON keeps."""

Outcome = Literal["held", "partly", "absent", "not measurable here", "invalid"]

OUTCOMES: dict[Outcome, str] = {
    "held": "every expectation is met, over the whole of its 95 % interval",
    "partly": "some expectations are met",
    "absent": "no expectation is met: the effect is not shown here",
    "not measurable here": "the machine, the model or the number of cases does not allow a verdict",
    "invalid": "a requirement is broken, so that the figures mean nothing",
}
"""What an outcome means, from the best to the worst."""


@dataclass(frozen=True)
class Figure:
    """A number that the rows give.

    Attributes:
        value: the estimate.
        low, high: its 95 % interval; None where it has none, such as an exact count.
        count: how many cases it is computed from.
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
    """A bound that a figure must keep, over the whole of its interval.

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
        """Whether the figure has cases enough for a verdict."""
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
    """What the rows of all cases say.

    Attributes:
        figures: by name, in the order in which they are shown.
        tables: what a reader wants to see beside the figures.
    """

    figures: dict[str, Figure]
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Case:
    """A part of an experiment that is measured as a whole, and kept once it is done.

    Attributes:
        key: unique in the experiment, and the same in every run of the same settings.
        measure: gives the rows.
    """

    key: str
    measure: Callable[[], Sequence[Row]]


@dataclass(frozen=True)
class Experiment:
    """A claim and its test.

    Attributes:
        claim: what the paper says, in one sentence.
        control: what could have won instead.
        test: what is measured here, on what, in one sentence.
        cases: the cases of a run; they are measured in this order. Loading the model may wait for the first.
        summarise: figures and tables of all rows; called with the rows of any run, also of a quick one.
        expects: what the claim says about the figures.
        requires: what must hold for the figures to mean anything, such as identical texts.
        methods: names of the methods whose paper makes the claim.
        paper: title and year, where no method has it.
        model: that the experiment is meant for.
        count: how many prompts or questions a run has by default.
        quick_model: for ``--quick``.
        timed: whether figures are times, so that the machine must be idle.
        minutes: about how long a run takes on two cores.
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
        """The verdict on the figures; a figure that is missing is not measurable."""
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
