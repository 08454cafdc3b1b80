"""ASAp: samples converge to the model's own distribution over a grammar, which masking never reaches.

The language is small enough to score every text, so the target distribution is known. So is the sampler's next
distribution, from its trie: nothing is estimated by counting samples. Not tested: large grammars, in which not every
text can be scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

import numpy as np

from unspool.experiments._language import REGEX, divergence, enumerate_language
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import mean, ratio

AFTER = (0, 1, 2, 5, 10, 20, 50, 100)


def cases(setup: Setup) -> list[Case]:
    """A case is a run: samples that share a trie."""
    after = setup.pick(AFTER, (0, 2))
    known = cache(lambda: enumerate_language(setup.language_model()))

    def measure(run: int) -> list[Row]:
        model, language = setup.language_model(), known()
        trie, done, made = None, 0, {}
        for n in after:
            if n > done:
                samples = model.sample(
                    language.ids,
                    n - done,
                    sampler="asap",
                    trie=trie,
                    seed=1000 * run + n,
                    regex=REGEX,
                    max_new_tokens=language.longest,
                )
                trie, done = samples.trie, n
            made[str(n)] = divergence(language.exact, language.next_draw(trie))
        masked = divergence(language.exact, language.next_draw(None))
        return [{"masking": masked, "asap": made, "texts": len(language.exact), "mass": language.mass}]

    return [Case(f"run {run}", partial(measure, run)) for run in range(setup.count)]


def summarise(rows: Sequence[Row]) -> Summary:
    """Divergences, a bootstrap over runs."""
    masked = [row["masking"] for row in rows]
    steps = list(rows[0]["asap"])
    by = {n: [row["asap"][n] for row in rows] for n in steps}
    figures = {
        "KL of masking": mean(masked),
        "KL of asap at the end / masking": ratio(by[steps[-1]], masked),
        "KL of asap at its worst / masking": ratio([max(row["asap"].values()) for row in rows], masked),
        "runs closer than masking at the end": mean(
            np.less(by[steps[-1]], masked).astype(float).tolist(),
        ),
    }
    lines = [("masking", f"{np.mean(masked):.4f}")]
    lines += [(f"asap after {n}", f"{np.mean(found):.4f}") for n, found in by.items()]
    title = f"KL(exact || sampler) in nats, {REGEX}, {rows[0]['texts']} token sequences"
    return Summary(figures, [Table(title, ("sampler", "KL"), lines)])


EXPERIMENT = Experiment(
    methods=("asap",),
    claim="Sampling that weighs tokens by the expected grammaticality of what follows converges to the model's own "
    "distribution over the grammar; masking stays away from it.",
    control="masking of forbidden tokens",
    test="exact divergence of the next draw after 100 samples, five binary digits in all their spellings",
    cases=cases,
    summarise=summarise,
    expects=[Expect("KL of asap at the end / masking", at_most=0.5, cases=5)],
    model="smollm2-135m",
    count=10,
    minutes=15,
)
