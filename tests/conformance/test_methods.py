"""Every registered drafter, under every acceptance rule, through the real loop on the toy model.

A method is in this suite by being in the registry; nothing here names one.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.conformance.harness import EmptyDrafter, EosDrafter, OracleDrafter, RandomDrafter
from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Drafter
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import EndEvent, StepEvent
from unspool.methods.shaping import _built_in as shaping

DRAFTERS = [name for name, method in methods.methods().items() if method.kind is DRAFTER]
# Flat up to four nodes, then a node costs a twentieth of a pass: auto buys some and not all.
CURVE = CostCurve((1, 4, 64), (32,), ((1.0, 1.0, 4.0),))
EOS = 3


def model(eos: bool = False) -> ToyModel:
    # A peaked table: greedy and cold text repeats itself, so look-up drafters find something.
    return ToyModel.random(vocab_size=6, order=2, seed=11, eos_token_id=EOS if eos else None)


def resources(toy: ToyModel) -> methods.Resources:
    return methods.Resources(toy, costs=lambda: PassCosts(CURVE), assistant=toy.related(0.7, seed=2))


def drafters(toy: ToyModel, text: list[int], name: str) -> Drafter:
    stubs = {
        "random": lambda: RandomDrafter(toy.vocab_size, seed=5),
        "perfect": lambda: OracleDrafter(text),
        "empty": EmptyDrafter,
        "eos": lambda: EosDrafter(EOS, text),
    }
    return stubs[name]() if name in stubs else methods.build(name, DRAFTER, resources(toy))


ALL = [*DRAFTERS, "random", "perfect", "empty", "eos"]


def run(
    toy: ToyModel,
    prompts: list[list[int]],
    made: list[Drafter],
    options: GenerationOptions,
    acceptance: str | None = None,
    eos: bool = False,
) -> tuple[list[list[int]], list[str], list[StepEvent]]:
    rule = methods.acceptance_rule(acceptance, options.greedy, resources(toy))
    requests = [
        Request(
            prompt,
            drafter,
            rule,
            options,
            shaping.build(options),
            frozenset({EOS}) if eos else frozenset(),
        )
        for prompt, drafter in zip(prompts, made, strict=True)
    ]
    texts: list[list[int]] = [[] for _ in prompts]
    reasons = [""] * len(prompts)
    steps = []
    for event in decode(toy, requests):
        if isinstance(event, StepEvent):
            texts[event.row] += event.emitted
            steps.append(event)
        elif isinstance(event, EndEvent):
            reasons[event.row] = event.reason
    return texts, reasons, steps


def plain(toy: ToyModel, prompt: list[int], options: GenerationOptions, eos: bool = False) -> list[int]:
    return run(toy, [prompt], [EmptyDrafter()], options, eos=eos)[0][0]


OPTIONS = {
    "greedy": {},
    "same_noise": {"temperature": 0.8, "seed": 4},
    "shaped": {"temperature": 1.1, "seed": 9, "top_k": 4, "top_p": 0.95, "repetition_penalty": 1.2},
    "no_repeat": {"no_repeat_ngram_size": 3, "sequence_bias": {(1, 2): 2.0}, "bad_words_ids": [[4, 4]]},
    "truncated": {"temperature": 0.7, "seed": 2, "min_p": 0.1, "typical_p": 0.9},
}


@pytest.mark.parametrize("setting", OPTIONS)
@pytest.mark.parametrize("name", ALL)
def test_identical_to_plain_decoding(name: str, setting: str) -> None:
    toy, prompt = model(), [0, 1, 2, 0, 1]
    options = GenerationOptions(max_new_tokens=60, **OPTIONS[setting])
    expected = plain(toy, prompt, options)
    (text,), (reason,), _ = run(toy, [prompt], [drafters(toy, prompt + expected, name)], options)
    assert text == expected
    assert reason == "length"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ALL)
def test_end_of_text_inside_a_draft(name: str, seed: int) -> None:
    toy, prompt = model(eos=True), [0, 1, 2, 0, 1]
    options = GenerationOptions(max_new_tokens=40, temperature=1.0, seed=seed)
    expected = plain(toy, prompt, options, eos=True)
    (text,), (reason,), _ = run(toy, [prompt], [drafters(toy, prompt + expected, name)], options, eos=True)
    assert text == expected
    assert reason == ("stop" if text[-1] == EOS else "length")
    assert EOS not in text[:-1]


@pytest.mark.parametrize("limit", [1, 2, 4, 7])
@pytest.mark.parametrize("name", ALL)
def test_length_limit_inside_a_draft(name: str, limit: int) -> None:
    toy, prompt = model(), [0, 1, 2, 0, 1, 2]
    expected = plain(toy, prompt, GenerationOptions(max_new_tokens=20))[:limit]
    options = GenerationOptions(max_new_tokens=limit)
    (text,), _, steps = run(toy, [prompt], [drafters(toy, [*prompt, *expected, *prompt], name)], options)
    assert text == expected
    assert all(len(step.emitted) >= 1 for step in steps)


def test_a_perfect_drafter_is_accepted_whole() -> None:
    toy, prompt = model(), [0, 1]
    options = GenerationOptions(max_new_tokens=32, temperature=0.9, seed=1)
    expected = plain(toy, prompt, options)
    _, _, steps = run(toy, [prompt], [OracleDrafter(prompt + expected)], options)
    assert all(len(step.accepted) == len(step.tokens) for step in steps)
    assert len(steps) < len(expected)


@pytest.mark.parametrize("name", ALL)
def test_rows_of_a_batch_equal_the_rows_alone(name: str) -> None:
    toy = model(eos=True)
    prompts = [[0, 1, 2, 0, 1], [5], [2, 4, 2, 4, 2, 4, 2], [1, 1]]
    options = GenerationOptions(max_new_tokens=25, temperature=0.9, seed=7)
    alone = [plain(toy, prompt, options, eos=True) for prompt in prompts]
    assert len({len(text) for text in alone}) > 1, "the rows should end at different steps"
    made = [drafters(toy, prompt + text, name) for prompt, text in zip(prompts, alone, strict=True)]
    together, _, _ = run(toy, prompts, made, options, eos=True)
    assert together == alone


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_replays_and_another_does_not(name: str) -> None:
    toy, prompt = model(), [0, 1, 2, 0, 1]

    def text(seed: int, acceptance: str) -> list[int]:
        options = GenerationOptions(max_new_tokens=30, temperature=1.0, seed=seed)
        return run(toy, [prompt], [drafters(toy, prompt, name)], options, acceptance)[0][0]

    for acceptance in ("same_noise", "lossless"):
        assert text(1, acceptance) == text(1, acceptance)
        assert text(1, acceptance) != text(2, acceptance)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [*DRAFTERS, "random"])
def test_lossless_keeps_the_distribution(name: str) -> None:
    """Chi-squared of the joint of three tokens, with trees of the usual size; ``test_drafters_exact`` sums small ones.

    One memory serves all samples, so that it has learned something.
    """
    toy, prompt, draws = ToyModel.random(vocab_size=4, order=1, seed=3), [0, 1, 2, 3, 0, 1], 2000
    exact = toy.distribution(3, prompt)
    counts: Counter[tuple[int, ...]] = Counter()
    around = resources(toy)
    for seed in range(draws):
        drafter = RandomDrafter(toy.vocab_size, seed) if name == "random" else methods.build(name, DRAFTER, around)
        options = GenerationOptions(max_new_tokens=3, temperature=1.0, seed=seed)
        counts[tuple(run(toy, [prompt], [drafter], options, "lossless")[0][0])] += 1
    cells = [(counts[text], draws * p) for text, p in exact.items() if draws * p >= 10]
    rest = (draws - sum(o for o, _ in cells), draws - sum(e for _, e in cells))
    cells += [rest] if rest[1] >= 1 else []
    statistic = sum((o - e) ** 2 / e for o, e in cells)
    freedom = len(cells) - 1
    # Wilson-Hilferty: the cube root of chi-squared over its degrees of freedom is nearly normal.
    z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / np.sqrt(2 / (9 * freedom))
    assert z < 3.9, f"chi-squared {statistic:.0f} with {freedom} degrees of freedom"


@pytest.mark.parametrize("name", DRAFTERS)
def test_memory_changes_speed_and_not_text(name: str) -> None:
    toy, prompt = model(), [0, 1, 2, 0, 1]
    options = GenerationOptions(max_new_tokens=40, temperature=0.7, seed=3)
    around = resources(toy)
    expected = plain(toy, prompt, options)
    # Another request first, whose text must not leak into this one's.
    run(toy, [[5, 5, 4, 5, 5]], [methods.build(name, DRAFTER, around)], GenerationOptions(max_new_tokens=40, seed=8))
    assert run(toy, [prompt], [methods.build(name, DRAFTER, around)], options)[0][0] == expected
    for memory in around.memories.values():
        memory.reset()
    assert run(toy, [prompt], [methods.build(name, DRAFTER, around)], options)[0][0] == expected
