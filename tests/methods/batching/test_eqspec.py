"""EQSPEC's plan on the toy model: full passes, refilled at once; rows are the rows alone under every drafter."""

from __future__ import annotations

import pytest

from tests.conformance.harness import ALL, drafters
from tests.methods.batching.reading import passes, texts
from tests.pairwise import pairwise
from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.conformance.drafter import model, plain, resources
from unspool.engine.autoregressive import Request, decode
from unspool.engine.batch import BatchPlan
from unspool.engine.options import GenerationOptions
from unspool.errors import UnspoolError
from unspool.methods.batching.eqspec import EqSpec, EqSpecOptions
from unspool.methods.batching.exspec import ExSpec, ExSpecOptions
from unspool.methods.shaping import _built_in as shaping

EOS = 3
PROMPTS = [[0, 1, 2, 0, 1], [5], [2, 4, 2, 4, 2, 4, 2], [1, 1], [4], [0, 3, 0], [2, 2, 2, 5], [0, 1, 2, 0, 1]]
PLANS = {
    "eqspec": lambda size: EqSpec(EqSpecOptions(size)),
    "exspec": lambda size: ExSpec(ExSpecOptions(size, size + 3, max_waiting_passes=2)),
}


def batch(name: str, options: GenerationOptions, acceptance: str | None = None) -> tuple[ToyModel, list[Request]]:
    toy = model(eos=True)
    rule, shapers = methods.acceptance_rule(acceptance, options.greedy, resources(toy)), shaping.build(options)
    made = [
        Request(prompt, drafters(toy, prompt + text, name), rule, options, shapers, frozenset({EOS}))
        for prompt, text in zip(PROMPTS, alone(options), strict=True)
    ]
    return toy, made


def alone(options: GenerationOptions) -> list[list[int]]:
    return [plain(model(eos=True), prompt, options, eos=True) for prompt in PROMPTS]


def run(name: str, plan: BatchPlan, options: GenerationOptions, acceptance: str | None = None) -> list[list[int]]:
    return texts(decode(*batch(name, options, acceptance), plan), len(PROMPTS))


@pytest.mark.parametrize(("name", "plan", "size", "temperature"), pairwise(ALL, PLANS, [2, 4], [0.0, 0.9]))
def test_rows_equal_the_rows_alone(name: str, plan: str, size: int, temperature: float) -> None:
    options = GenerationOptions(max_new_tokens=20, temperature=temperature, seed=7)
    assert run(name, PLANS[plan](size), options) == alone(options)


def test_lossless_rows_do_not_depend_on_who_shares_their_pass() -> None:
    """Draws and tests take their randomness from seed and position, so that even this rule gives the row alone."""
    options = GenerationOptions(max_new_tokens=20, temperature=1.0, seed=3)
    expected = run("draft_model", EqSpec(EqSpecOptions(1)), options, "lossless")
    for plan in PLANS.values():
        assert run("draft_model", plan(3), options, "lossless") == expected
    assert expected != run("plain", EqSpec(EqSpecOptions(1)), options, "same_noise")


def test_passes_are_full_until_no_sequence_waits() -> None:
    options = GenerationOptions(max_new_tokens=15, temperature=0.9, seed=2)
    rows = passes(decode(*batch("random", options), EqSpec(EqSpecOptions(3))))
    last = next(i for i, together in enumerate(rows) if len(PROMPTS) - 1 in together)
    assert all(len(together) == 3 for together in rows[: last + 1]) and len(rows) > last + 1
    assert len({tuple(together) for together in rows}) > 3


def test_options() -> None:
    assert EqSpec(EqSpecOptions()).window == 8
    with pytest.raises(UnspoolError, match="at least 1, not 0"):
        EqSpecOptions(0)
