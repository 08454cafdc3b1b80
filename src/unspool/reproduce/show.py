"""Show the result of an experiment on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable

from unspool.reproduce.experiment import OUTCOMES, Experiment
from unspool.reproduce.result import ExperimentResult


def show(experiment: Experiment, result: ExperimentResult, console: Console, quick: bool = False) -> None:
    """Print the claim, the tables, the figures beside their expectations, and the outcome."""
    settings = result.settings
    console.print(f"\n[bold]{result.experiment}[/bold]  {settings['model']}, {settings['count']}", highlight=False)
    for what in ("claim", "control", "test"):
        console.print(f"{what}: {getattr(result, what)}", highlight=False, markup=False)
    for table in experiment.summarise(result.rows).tables:
        drawn = RichTable(title=table.title or None, box=None, title_justify="left")
        for i, column in enumerate(table.header):
            drawn.add_column(column, justify="right" if i else "left", overflow="fold")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)
    drawn = RichTable("figure", "value [95 %]", "cases", "expected", "met", box=None)
    bounds = {bound.figure: bound for bound in (*experiment.requires, *experiment.expects)}
    for name, figure in result.figures.items():
        bound = bounds.get(name)
        expected = str(bound).partition(": ")[2] if bound else ""
        met = "" if bound is None else "too few" if not bound.enough(figure) else "yes" if bound.met(figure) else "no"
        drawn.add_row(name, str(figure), "" if figure.count is None else str(figure.count), expected, met)
    console.print(drawn)
    if quick:
        console.print("quick run: no verdict", highlight=False)
    else:
        console.print(f"[bold]{result.outcome}[/bold]: {OUTCOMES[result.outcome]}", highlight=False)
