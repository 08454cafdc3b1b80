"""An independent judge: greedy plain decoding on the torch backend against transformers' own ``generate``.

A difference is a tie if the backend's measured rounding explains it, else a fault (``unspool.proof.identity``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from transformers import GenerationConfig

from unspool.backends.torch.model import TransformersModel
from unspool.decoding.model import Model
from unspool.engine.trace import StepEvent
from unspool.experiments._quick_model import checkpoint
from unspool.proof import case as proof_case
from unspool.proof.identity import judge
from unspool.proof.rounding import NoiseMeter
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary
from unspool.reproduce.setup import Setup
from unspool.suites.prompts import Prompt


def cases(setup: Setup) -> list[Case]:
    """A case is a prompt."""
    longest = setup.pick(128, 12)

    def measure(number: int, prompt: Prompt) -> list[Row]:
        with checkpoint(setup) as name:
            model = setup.language_model(name, backend="transformers")
            return [compare(model, number, replace(prompt, text=prompt.text[: setup.pick(None, 60)]), longest)]

    return [Case(prompt.id, partial(measure, i, prompt)) for i, prompt in enumerate(setup.prompts("mixed"))]


def compare(model: Model, number: int, prompt: Prompt, longest: int) -> Row:
    """One prompt by both.

    Returns:
        ``tokens`` of unspool's output, whether transformers' is ``identical``, and the number of ``ties`` and
        ``faults`` in it.
    """
    ids = model.encode(prompt.text)
    result = model.generate(ids, method="plain", max_new_tokens=longest)
    margins = [m for event in result.trace if isinstance(event, StepEvent) for m in event.margins]
    case = proof_case.Case(number, ids, 0, result.token_ids, margins)
    theirs = transformers_ids(model, ids, longest)
    found = judge(
        model.language_model,
        [case],
        {"transformers": [theirs]},
        temperature=0.0,
        max_new_tokens=longest,
        eos=model.eos_token_ids,
        meter=NoiseMeter(model.language_model, 0.0),
    )["transformers"][0]
    verdicts = [difference.verdict for difference in found]
    return {
        "prompt": prompt.id,
        "tokens": len(result.token_ids),
        "identical": not found,
        "ties": verdicts.count("tie"),
        "faults": verdicts.count("fault"),
    }


def transformers_ids(model: Model, prompt: list[int], max_new_tokens: int) -> list[int]:
    """Output ids of ``generate`` on the torch model that the backend holds."""
    assert isinstance(model.language_model, TransformersModel)
    network = model.language_model.model
    network.generation_config = GenerationConfig()  # the model's own would fill in penalties
    eos = sorted(model.eos_token_ids)
    ids = torch.tensor([prompt])
    out = network.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=eos,
        pad_token_id=eos[0],
    )
    return [int(token) for token in out[0, len(prompt) :]]


def summarise(rows: Sequence[Row]) -> Summary:
    """Exact counts over all prompts."""
    figures = {
        name: Figure(float(sum(row[name] for row in rows)), count=len(rows))
        for name in ("tokens", "identical", "ties", "faults")
    }
    return Summary(figures)


EXPERIMENT = Experiment(
    claim="Plain decoding on the torch backend gives the tokens of transformers' own generate.",
    control="transformers' generate on the same weights, with rounding measured so that ties are not faults",
    test="prompts of unspool's own suite, greedy, 128 tokens",
    cases=cases,
    summarise=summarise,
    expects=[Expect("faults", at_most=0, cases=20)],
    model="smollm2-135m",
    count=40,
    minutes=10,
)
