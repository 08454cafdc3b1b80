"""AdaDec: does a look-ahead at steps of high entropy solve more problems than greedy decoding, and than its controls?

- ``random pauses``: adadec that pauses at as many steps of a problem as adadec did, at steps drawn at random.
- ``shuffled scores``: adadec's pauses, but one of the candidates is taken at random.
- ``random changes``: adadec's pauses; another candidate than greedy decoding's is taken about as often as adadec took
  one on the problem. Both look at no scores, so they look ahead by no token.
- ``beam``: beam search with 3 beams, of about the same cost.

HumanEval has 164 problems, and a full run takes hours on two cores; ``adadec_tokens`` tests the same idea by token.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

from unspool.engine.search import Distribution, Found, Output
from unspool.experiments._drafting import by_variant
from unspool.experiments._humaneval import GREEDY, Problem, problems, solved, table
from unspool.methods.search import adadec
from unspool.methods.search.adadec import AdaDecOptions
from unspool.methods.search.beam import BeamOptions, beam
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.suites.prompts import Prompt

THRESHOLD = 1.358
"""Nats; learned for qwen2.5-coder-0.5b in int8 by ``unspool train adadec-threshold``, on sources without HumanEval."""
OURS, PAUSES, SHUFFLED, CHANGES, BEAM = "adadec", "random pauses", "shuffled scores", "random changes", "beam"


def cases(setup: Setup) -> list[Case]:
    """A case is a problem in all variants: the controls pause as often as adadec did on it."""

    threshold = setup.pick(THRESHOLD, 0.1)

    def measure(prompt: Prompt) -> list[Row]:
        problem = Problem(setup.language_model(), prompt, setup.pick(512, 16))
        found = {GREEDY: problem.greedy(), OURS: adadec.adadec(problem.request, AdaDecOptions(threshold))}
        for variant in (PAUSES, SHUFFLED, CHANGES):
            chance = random.Random(f"{prompt.id} {variant}")
            found[variant] = _control(problem, variant, found[OURS], threshold, chance)
        found[BEAM] = beam(problem.request, BeamOptions(num_beams=3))
        return [problem.row(variant, one) for variant, one in found.items()]

    return [Case(prompt.id, partial(measure, prompt)) for prompt in problems(setup)]


def _control(problem: Problem, variant: str, ours: Found, threshold: float, chance: random.Random) -> Found:
    """adadec with one of its two rules replaced by chance."""
    pauses, changed = int(ours.counts["pauses"]), ours.counts["changed"]
    if variant == PAUSES:
        steps = set(chance.sample(range(len(ours.candidates[0].token_ids)), pauses))
        return adadec.decode(problem.request, AdaDecOptions(0.0), lambda output, _: len(output) in steps, adadec.best)

    def unsure(output: Output, distribution: Distribution) -> bool:
        return distribution.entropy >= threshold

    def any_candidate(scores: Sequence[float]) -> int:
        return chance.randrange(len(scores))

    def rarely_another(scores: Sequence[float]) -> int:
        return chance.randrange(1, len(scores)) if len(scores) > 1 and chance.random() * pauses < changed else 0

    choose = any_candidate if variant == SHUFFLED else rarely_another
    return adadec.decode(problem.request, AdaDecOptions(0.0, lookahead=0), unsure, choose)


def summarise(rows: Sequence[Row]) -> Summary:
    """Problems solved by adadec less those of each control."""
    return Summary(solved(by_variant(rows), OURS), [table(rows)])


EXPERIMENT = Experiment(
    methods=("adadec",),
    claim="Re-ranking the three most likely tokens by a look-ahead of five tokens, only where entropy is high, solves "
    "more problems than greedy decoding and as many as beam search.",
    control="greedy decoding; as many pauses at random steps; pauses whose scores are shuffled; as many changes at "
    "random; beam search with 3 beams",
    test="HumanEval, up to 512 tokens, scored by the hidden tests",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect(f"solved, {OURS} less {GREEDY}", at_least=0.02, cases=150),
        *(Expect(f"solved, {OURS} less {other}", at_least=0, cases=150) for other in (PAUSES, SHUFFLED, CHANGES)),
        Expect(f"solved, {OURS} less {BEAM}", at_least=-0.05, cases=150),
    ],
    count=164,
    minutes=240,
)
