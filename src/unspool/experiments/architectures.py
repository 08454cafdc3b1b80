"""Architectures: random checkpoints of every kind of decoder, on both backends, against transformers' own ``generate``.

A row is a checkpoint of four layers that is made, saved, loaded by each backend and asked to continue 100 ids (fewer
where its context is shorter) by 12 greedy tokens, plainly and with a drafter. It is *same* if all tokens are equal and
no log-probability differs by 1e-3 or more, or it is refused in one line; everything else is a fault. Weights are drawn
so that logits spread over several units: with the small ones of an initialisation most faults would stay below the
bound. The columns ``the traced form`` and ``the graph`` are the largest differences that the conversion itself found,
of the traced form from the model's own forward and of the graph from the traced form, as parts of the range of the
values.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from unspool.experiments._architecture_row import BACKENDS, in_process, is_fault, run_row
from unspool.experiments._architectures import ROWS
from unspool.experiments._quick_model import RANDOM, refuse_model
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import share

SECONDS = 600
"""That a row may take."""


def cases(setup: Setup) -> list[Case]:
    """A case is a kind of decoder."""
    refuse_model(setup)

    def measure(name: str) -> list[Row]:
        return [{"architecture": name, **(run_row(name) if setup.quick else in_process(name, SECONDS))}]

    return [Case(name, partial(measure, name)) for name in list(ROWS)[: setup.count]]


def summarise(rows: Sequence[Row]) -> Summary:
    """Outcomes of both backends are counted together."""
    outcomes = [row[backend] for row in rows for backend in BACKENDS]
    figures = {
        "faults": Figure(float(sum(map(is_fault, outcomes))), count=len(rows)),
        "same": share([outcome.startswith("same") for outcome in outcomes]),
    }
    columns = ("architecture", "transformers", "openvino", "the traced form", "the graph")
    drawn = [tuple(row.get(name, "") for name in columns) for row in rows]
    return Summary(figures, [Table("", columns, drawn)])


EXPERIMENT = Experiment(
    claim="A decoder of any architecture gives the tokens and the log-probabilities of transformers, or is refused.",
    control="transformers' own generate on the same checkpoint",
    test="random checkpoints of four layers, 12 greedy tokens, plainly and with prompt_lookup, on both backends",
    cases=cases,
    summarise=summarise,
    expects=[Expect("faults", at_most=0, cases=100), Expect("same", at_least=0.7)],
    model=RANDOM,
    quick_model=RANDOM,
    count=len(ROWS),
    minutes=20,
)
