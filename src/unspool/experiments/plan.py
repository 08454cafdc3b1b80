"""PG-TD: does a tree search rewarded with a docstring's examples solve more problems than sampling until they pass?

``sample`` has the same reward and the same budget: greedy decoding, then samples at temperature 0.8 (not tuned) until
the examples pass or the budget is spent. The best text by the reward counts, the first among equals. Both decode a
problem without an executable example greedily.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial

import numpy as np

from unspool.engine.frontier import BudgetSpentError, Frontier
from unspool.engine.noise import draw
from unspool.engine.search import Candidate, Found, Output, SearchRequest
from unspool.experiments._drafting import by_variant
from unspool.experiments._humaneval import GREEDY, Problem, overlap, problems, solved, table
from unspool.methods.search.plan import plan
from unspool.methods.search.plan.planner import PlanOptions
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.suites.prompts import Prompt

OURS, SAMPLE = "plan", "sample"
TEMPERATURE = 0.8


def cases(setup: Setup) -> list[Case]:
    """A case is a problem in all variants."""
    longest, budget = setup.pick(512, 24), setup.pick(1024, 64)

    def measure(prompt: Prompt) -> list[Row]:
        problem = Problem(setup.language_model(), prompt, longest)
        found = {GREEDY: problem.greedy()}
        rewarded = problem.tests is not None
        found[OURS] = plan(problem.request, PlanOptions(max_model_tokens=budget)) if rewarded else found[GREEDY]
        found[SAMPLE] = sample(problem.request, budget) if rewarded else found[GREEDY]
        return [
            {
                **problem.row(variant, one),
                "overlap": overlap(prompt.reference),
                "reward": one.candidates[0].score if rewarded and variant != GREEDY else None,
            }
            for variant, one in found.items()
        ]

    return [Case(prompt.id, partial(measure, prompt)) for prompt in problems(setup)]


def sample(request: SearchRequest, budget: int) -> Found:
    """Greedy decoding, then samples, until one has a reward of 1 or the next one does not fit the budget."""
    assert request.reward is not None
    found: list[Candidate] = []
    frontier = Frontier(request.model, request.prompt, budget=budget)
    with closing(frontier):
        while not found or found[-1].score < 1:
            output: Output = ()
            logprob = 0.0
            try:
                while (reason := request.finished(output)) is None:
                    (distribution,) = frontier.read([output])
                    token = distribution.best
                    if found:
                        logits = distribution.logits.astype(np.float64) / TEMPERATURE
                        place = len(request.prompt) + len(output)
                        token = draw(logits, len(found), place, len(logits), np.arange(len(logits)))
                    logprob += distribution.logprob(token)
                    output = (*output, token)
            except BudgetSpentError:
                break
            found.append(Candidate(output, logprob, request.reward(output), reason))
            if frontier.evaluated_tokens >= budget:
                break
        best = max(found, key=lambda candidate: candidate.score)  # the first among equals
        return Found((best,), frontier.passes, frontier.evaluated_tokens, {"samples": len(found)})


def summarise(rows: Sequence[Row]) -> Summary:
    """Problems solved by the plan less those of its controls, and problems whose examples hold but that fail."""
    by = by_variant(rows)
    misled = [row["reward"] == 1 and not row["passed"] for row in by[OURS]]
    figures = {
        **solved(by, OURS),
        "examples hold, hidden tests fail, plan": Figure(float(sum(misled)), count=len(misled)),
    }
    kinds = ("all", "some", "none", "no example")
    repeated = [
        (
            kind,
            str(sum(row["overlap"] == kind for row in by[GREEDY])),
            *(str(sum(row["passed"] for row in found if row["overlap"] == kind)) for found in by.values()),
        )
        for kind in kinds
    ]
    header = ("examples among the hidden tests", "problems", *(f"solved, {variant}" for variant in by))
    return Summary(figures, [table(rows), Table("", header, repeated)])


EXPERIMENT = Experiment(
    methods=("plan",),
    claim="Monte-Carlo tree search over tokens, rewarded with public tests, finds more programs that pass hidden tests "
    "than sampling and filtering by the same tests.",
    control="greedy decoding; samples until the examples hold, of the same budget of 1,024 model tokens a problem",
    test="HumanEval, up to 512 tokens a program, examples of the docstring as public tests",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect(f"solved, {OURS} less {GREEDY}", at_least=0.05, cases=150),
        Expect(f"solved, {OURS} less {SAMPLE}", at_least=0, cases=150),
    ],
    count=164,
    minutes=150,
)
