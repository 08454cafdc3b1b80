"""PIE: after edits far from the cursor, does a cache with moved keys give the same text as a recomputed one?

Prompts are sources of installed packages; functions are inserted and removed, and local names renamed. Edits on which
what follows depends are ``edit_adversarial``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from unspool.experiments._drafting import by_variant
from unspool.experiments._edit_modes import CONFLICT, EXACT, HYBRID, MODES, PIE, compare
from unspool.experiments._edits import MODULES, ordinary
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference, mean, ratio, share


def cases(setup: Setup) -> list[Case]:
    """A case is a module, with all its edits in all modes."""
    far, length = setup.pick(2500, 500), setup.pick(32, 8)

    def measure(module: str) -> list[Row]:
        model = setup.language_model()
        edits = ordinary(model, module, far)
        return [row for case in edits for row in compare(model, module, case, tuple(MODES), length)]

    return [Case(module, partial(measure, module)) for module in MODULES[: setup.count]]


def summarise(rows: Sequence[Row]) -> Summary:
    """Figures over edits; those of two modes are paired by edit."""
    by = by_variant(rows)

    def values(name: str, mode: str) -> list[float]:
        return [float(row[name]) for row in by[mode]]

    figures = {
        "KL, pie": mean(values("kl", PIE)),
        "KL, conflict less pie": difference(values("kl", CONFLICT), values("kl", PIE)),
        "same next line, pie": share([row["same line"] for row in by[PIE]]),
        "same next line, pie less conflict": difference(values("same line", PIE), values("same line", CONFLICT)),
        "same next line, hybrid less pie": difference(values("same line", HYBRID), values("same line", PIE)),
        "tokens encoded, pie / recompute": ratio(values("encoded", PIE), values("encoded", EXACT)),
    }
    drawn = [
        (
            mode,
            *(f"{sum(values(name, mode)) / len(by[mode]):.3f}" for name in ("kl", "top1", "same line", "answer")),
            f"{sum(values('encoded', mode)) / len(by[mode]):.0f}",
        )
        for mode in by
    ]
    return Summary(figures, [Table("", ("mode", "KL", "top-1", "same line", "true line", "encoded"), drawn)])


EXPERIMENT = Experiment(
    methods=("edit",),
    claim="After an edit far before the cursor it is enough to encode the new tokens and to rotate the cached keys of "
    "the later ones to their new positions: the model goes on as after full recomputation.",
    control="conflict: new tokens are encoded and keys are not rotated; a hybrid that also encodes 64 tokens "
    "again that share a name with the edit",
    test="insertions, removals and renames in sources of packages, prompts of up to 2,500 tokens, greedy next line",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect("KL, pie", at_most=0.01, cases=10),
        Expect("KL, conflict less pie", at_least=0.5, cases=10),
        Expect("same next line, pie", at_least=0.8, cases=10),
        Expect("same next line, pie less conflict", at_least=0.2, cases=10),
        Expect("tokens encoded, pie / recompute", at_most=0.1, cases=10),
    ],
    count=12,
    minutes=15,
)
