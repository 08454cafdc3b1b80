"""DySpec: likely drafts are accepted more often, so a tree that grows at likely tokens gives more tokens per pass.

Trees of 6 nodes at temperatures 0.6 and 0: DySpec's heap and its threshold, a static tree, a chain. The hypothesis
itself is also tested: R, the draft's probability of a token among those not drawn before, against acceptance. Not
tested: time, and the trees of several hundred nodes that the paper draws on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from unspool.engine.contracts import Drafter, LanguageModel, Step
from unspool.experiments._assistant import with_draft
from unspool.experiments._drafting import IDENTICAL, accepted, by_variant, decode_with, gain, identical, table
from unspool.methods import PLAIN
from unspool.methods.drafters.draft_model import DraftModel, DraftModelOptions
from unspool.methods.drafters.dyspec import DySpec, DySpecOptions
from unspool.methods.drafters.rsd import RSD, RSDOptions
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference
from unspool.suites.prompts import Prompt

NODES = 6
TEMPERATURE = 0.6
BUCKETS = 5


class Watched(DySpec):
    """Notes R and the outcome of every draw that was tested."""

    def __init__(self, options: DySpecOptions, model: LanguageModel, vocab_size: int) -> None:
        super().__init__(options, model, vocab_size)
        self.tested: list[tuple[float, bool]] = []

    def observe(self, step: Step) -> None:
        tree = step.tree
        for node in step.decision.path:
            mass = 1.0
            for child in tree.children[node]:
                q = float(tree.distributions[tree.drafts[child]].q[tree.tokens[child]])
                kept = child in step.decision.path
                self.tested.append((min(1.0, q / mass) if mass > 0 else 1.0, kept))
                mass -= q
                if kept:
                    break

    def buckets(self) -> tuple[list[int], list[int]]:
        """How many draws were tested, and accepted, by R in fifths."""
        places = [min(int(share * BUCKETS), BUCKETS - 1) for share, _ in self.tested]
        accepted = [place for place, (_, kept) in zip(places, self.tested, strict=True) if kept]
        return [places.count(i) for i in range(BUCKETS)], [accepted.count(i) for i in range(BUCKETS)]


HEAP, LEVELS, STATIC, CHAIN = "heap", "threshold", "static 2x2", "chain"
VARIANTS: dict[str, Callable[[LanguageModel, int], Drafter]] = {
    HEAP: lambda model, size: DySpec(DySpecOptions(NODES), model, size),
    LEVELS: lambda model, size: DySpec(DySpecOptions(NODES, threshold=1 / NODES), model, size),
    STATIC: lambda model, size: RSD(RSDOptions("constant", branching=(2, 2)), model, size),
    CHAIN: lambda model, size: DraftModel(DraftModelOptions(NODES), model, size),
}


def cases(setup: Setup) -> list[Case]:
    """A case is a prompt with all variants at both temperatures."""

    def measure(prompt: Prompt) -> list[Row]:
        model, draft, size = with_draft(setup)
        length = setup.pick(40, 8)
        made = [{"variant": PLAIN, "temperature": 0, **decode_with(model, PLAIN, prompt, length)}]
        for name, make in VARIANTS.items():
            made.append({"variant": name, "temperature": 0, **decode_with(model, make(draft, size), prompt, length)})
            drafter = Watched(DySpecOptions(NODES), draft, size) if name == HEAP else make(draft, size)
            row = decode_with(model, drafter, prompt, length, TEMPERATURE, "lossless")
            if isinstance(drafter, Watched):
                row["tested"], row["accepted"] = drafter.buckets()
            made.append({"variant": name, "temperature": TEMPERATURE, **row})
        return made

    return [Case(prompt.id, partial(measure, prompt)) for prompt in setup.prompts()]


def summarise(rows: Sequence[Row]) -> Summary:
    """Tokens a pass paired by prompt, and acceptance of draws by R."""
    greedy, drawn = (by_variant([row for row in rows if row["temperature"] == t]) for t in (0, TEMPERATURE))
    figures = {IDENTICAL.figure: identical(greedy)}
    for by, said in ((drawn, f"temperature {TEMPERATURE}"), (greedy, "temperature 0")):
        figures[f"tokens a pass, {said}"] = accepted(by[HEAP])
        figures[f"heap / static tree, {said}"] = gain(by[HEAP], by[STATIC])
        figures[f"heap / chain, {said}"] = gain(by[HEAP], by[CHAIN])
        figures[f"heap / threshold, {said}"] = gain(by[HEAP], by[LEVELS])
    tested, kept = (np.array([row[name] for row in drawn[HEAP]]) for name in ("tested", "accepted"))
    half = BUCKETS // 2
    low, high = (tested[:, part].sum(axis=1) for part in (slice(half), slice(half, None)))
    both = (low > 0) & (high > 0)
    sure, unsure = kept[both][:, half:].sum(axis=1) / high[both], kept[both][:, :half].sum(axis=1) / low[both]
    figures["acceptance, R of 0.4 and more less R below"] = difference(sure.tolist(), unsure.tolist())
    buckets = Table(
        "draws by R",
        ("R", "tested", "accepted"),
        [
            (f"{i / BUCKETS:.1f} to {(i + 1) / BUCKETS:.1f}", str(n), f"{k / n:.2f}" if n else "-")
            for i, (n, k) in enumerate(zip(tested.sum(axis=0), kept.sum(axis=0), strict=True))
        ],
    )
    return Summary(figures, [table(drawn, f"temperature {TEMPERATURE}"), table(greedy, "temperature 0"), buckets])


EXPERIMENT = Experiment(
    methods=("dyspec",),
    claim="The more likely a draft model finds a token the more often the target accepts it, so a tree that grows by "
    "that probability gives more tokens a pass than a static one.",
    control="a static tree and a chain of as many nodes",
    test=f"trees of {NODES} nodes at temperatures {TEMPERATURE} and 0, the model's own int4 weights drafting, "
    "functions of HumanEval",
    cases=cases,
    summarise=summarise,
    requires=[IDENTICAL],
    expects=[
        Expect("acceptance, R of 0.4 and more less R below", at_least=0.2, cases=5),
        Expect(f"heap / static tree, temperature {TEMPERATURE}", at_least=1, cases=10),
        Expect(f"heap / chain, temperature {TEMPERATURE}", at_least=1, cases=10),
        Expect("heap / static tree, temperature 0", at_least=1, cases=10),
        Expect("heap / chain, temperature 0", at_least=1, cases=10),
    ],
    model="smollm2-135m",
    count=30,
    minutes=20,
)
