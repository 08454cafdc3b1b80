"""CARS: exact samples of a grammar from the first one, with far fewer attempts than rejection sampling.

The language is small enough to score every text. The first ten samples of many runs are pooled, and their distance
from the exact distribution is compared with that of as many draws from that distribution. The same test must detect
masking.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

import numpy as np

from unspool.experiments._language import REGEX, distance, distances_by_chance, enumerate_language
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import ratio

FIRST = 10
OURS, MASKING = "cars", "masking"


def cases(setup: Setup) -> list[Case]:
    """A case is a run of ten samples that share a trie, and as many by masking; one more lists the language."""

    known = cache(lambda: enumerate_language(setup.language_model()))

    def exact() -> list[Row]:
        language = known()
        texts = {" ".join(map(str, path)): q for path, q in language.exact.items()}
        return [{"mass": language.mass, "exact": texts}]

    def measure(run: int) -> list[Row]:
        model, language = setup.language_model(), known()
        fits = {"regex": REGEX, "max_new_tokens": language.longest}
        first = setup.pick(FIRST, 1)
        ours = model.sample(language.ids, first, sampler="cars", seed=run, max_attempts=100_000, **fits)
        masked = [
            model.generate(language.ids, temperature=1.0, seed=1000 * run + i, method="plain", **fits)
            for i in range(first)
        ]
        said = ([" ".join(map(str, result.token_ids)) for result in found] for found in (ours.results, masked))
        return [
            {OURS: next(said), MASKING: next(said), "attempts": ours.attempts},
        ]

    return [Case("exact", exact), *(Case(f"run {run}", partial(measure, run)) for run in range(setup.count))]


def summarise(rows: Sequence[Row]) -> Summary:
    """Distances, and how likely as large a one is by chance."""
    head, runs = rows[0], rows[1:]
    exact = {tuple(map(int, text.split())): q for text, q in head["exact"].items()}
    figures, lines = {}, []
    for name in (OURS, MASKING):
        seen = [tuple(map(int, text.split())) for row in runs for text in row[name]]
        ours, chance = distance(seen, exact), distances_by_chance(len(seen), exact)
        figures[f"distance, {name}"] = Figure(ours, count=len(seen))
        figures[f"chance of such a distance, {name}"] = Figure(float(np.mean(chance >= ours)), count=len(seen))
        lines.append((name, f"{ours:.3f}", f"{chance.mean():.3f}", str(len(seen))))
    tried = [row["attempts"] for row in runs]
    rejection = [len(row[OURS]) / head["mass"] for row in runs]
    figures["attempts, cars / rejection"] = ratio(tried, rejection)
    return Summary(figures, [Table("total variation", ("sampler", "distance", "by chance", "samples"), lines)])


EXPERIMENT = Experiment(
    methods=("cars",),
    claim="Rejection sampling that never repeats a known mistake draws from the model's exact distribution over the "
    "grammar from the first sample on, with far fewer attempts than plain rejection.",
    control="masking, whose samples must be told from the exact distribution by the same test; plain rejection",
    test=f"the first {FIRST} samples of each run, five binary digits in all their spellings",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect("chance of such a distance, cars", at_least=0.05, cases=200),
        Expect("chance of such a distance, masking", at_most=0.001, cases=200),
        Expect("attempts, cars / rejection", at_most=0.1, cases=10),
    ],
    model="smollm2-135m",
    count=30,
    minutes=15,
)
