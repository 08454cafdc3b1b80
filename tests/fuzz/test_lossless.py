"""``lossless`` under shaping: the joint of three tokens against the exact distribution by transformers' processors.

Rows of four share a pass and one memory, and every row before them has filled it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.fuzz.cases import DRAFTERS
from tests.fuzz.reference import Processors, z_of
from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.engine.autoregressive import Request, decode
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.methods.shaping import _built_in as shaping

TOY = ToyModel.random(vocab_size=5, order=2, seed=8)
PROMPT = [0, 1, 2, 3, 0, 1]
LENGTH, ROWS = 3, 4
CURVE = CostCurve((1, 4, 64), (32,), ((1.0, 1.0, 4.0),))

SHAPINGS: dict[str, dict[str, Any]] = {
    "plain": {"temperature": 1.0},
    "top_p": {"temperature": 0.7, "top_p": 0.8},
    "penalty": {"temperature": 1.4, "top_k": 3, "repetition_penalty": 1.5},
    "no repeat": {"temperature": 1.0, "no_repeat_ngram_size": 2},
    "min_p": {"temperature": 1.0, "min_p": 0.3, "typical_p": 0.9},
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "dyspec": [{"num_assistant_tokens": 8}],
    "rasd": [{}, {"drafter": "stand"}, {"drafter": "rsd", "prune_top_k": 2}],
    "stand": [{}, {"orders": (2, 1)}],
}
"""Where the defaults are slow on a toy, or leave mixtures out."""


def exact(options: dict[str, Any]) -> dict[tuple[int, ...], float]:
    """Probability of every output."""
    processors = Processors(options, len(PROMPT), [])
    outputs = {(): 1.0}
    for _ in range(LENGTH):
        longer: dict[tuple[int, ...], float] = {}
        for text, weight in outputs.items():
            tokens = [*PROMPT, *text]
            row = processors(tokens, np.log(TOY.probabilities(tokens)))
            p = np.exp(row - row.max())
            for token in np.flatnonzero(p).tolist():
                longer[(*text, token)] = weight * float(p[token] / p.sum())
        outputs = longer
    return outputs


def z(name: str, own: dict[str, Any], options: dict[str, Any], noise: float, draws: int) -> float:
    """How far ``draws`` outputs are from the exact distribution, in standard deviations."""
    draft = TOY.related(noise, seed=2)
    around = methods.Resources(TOY, costs=lambda: PassCosts(CURVE), assistant=draft)
    rule = methods.acceptance_rule("lossless", False, around)
    counts: Counter[tuple[int, ...]] = Counter()
    for first in range(0, draws, ROWS):
        requests = []
        for seed in range(first, first + ROWS):
            given = GenerationOptions(max_new_tokens=LENGTH, seed=seed, **options)
            made = methods.build(name, DRAFTER, around, own)
            requests.append(Request(PROMPT, made, rule, given, shaping.build(given)))
        texts: list[tuple[int, ...]] = [()] * ROWS
        for event in decode(TOY, requests):
            if isinstance(event, StepEvent):
                texts[event.row] += event.emitted
        counts.update(texts)
    return z_of(counts, exact(options), draws)


ALL = [
    pytest.param(name, own, shape, noise, id=f"{name}-{number}-{shape}-{noise}")
    for noise in (0.6, 3.0)
    for name in DRAFTERS
    for number, own in enumerate(OPTIONS.get(name, [{}]))
    for shape in SHAPINGS
    if noise < 1 or methods.find(name, DRAFTER).draws  # a far draft is another one only where there is a draft model
]


@pytest.mark.parametrize(("name", "own", "shape", "noise"), ALL[3::45])
def test_a_few_joints(name: str, own: dict[str, Any], shape: str, noise: float) -> None:
    assert z(name, own, SHAPINGS[shape], noise, 600) < 4


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "own", "shape", "noise"), ALL)
def test_all_joints(name: str, own: dict[str, Any], shape: str, noise: float) -> None:
    assert z(name, own, SHAPINGS[shape], noise, 2000) < 4.5
