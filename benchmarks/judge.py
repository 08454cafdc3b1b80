"""An outside judge: plain decoding of the torch backend, greedy, against transformers' own ``generate``.

A difference is a tie if the backend's measured noise explains it, else a fault (``unspool.proof.identity``). Exit code
1 if there is a fault.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import asdict
from pathlib import Path

import common
import torch
from transformers import GenerationConfig

from unspool import suites
from unspool.backends.torch.model import TransformersModel
from unspool.bench.about import about
from unspool.decoding.load import load
from unspool.decoding.model import Model
from unspool.engine.trace import StepEvent
from unspool.proof.case import Case
from unspool.proof.identity import judge
from unspool.proof.rounding import NoiseMeter


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Spec-Bench's question.jsonl or a file of its form")
    parser.add_argument("-m", "--model", default="smollm2-135m", help="as `unspool generate -m`")
    parser.add_argument("--prompts", type=int, default=40, help="number, spread over the categories; 40 by default")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="128 by default")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    setting = about()
    prompts = suites.rounds(suites.load(f"spec-bench:{arguments.data}").prompts, random.Random(0))[: arguments.prompts]
    model = load(arguments.model, backend="transformers", report=common.say)
    cases, outputs = [], []
    for number, prompt in enumerate(prompts):
        ids = model.encode(prompt.text)
        result = model.generate(ids, method="plain", max_new_tokens=arguments.max_new_tokens)
        margins = [m for event in result.trace if isinstance(event, StepEvent) for m in event.margins]
        cases.append(Case(number, ids, 0, result.token_ids, margins))
        outputs.append(transformers_ids(model, ids, arguments.max_new_tokens))
        same = sum(list(case.token_ids) == other for case, other in zip(cases, outputs, strict=True))
        common.say(f"prompt {number + 1} of {len(prompts)}: {same} identical")
    meter = NoiseMeter(model.language_model, 0.0)
    found = judge(
        model.language_model,
        cases,
        {"transformers": outputs},
        temperature=0.0,
        max_new_tokens=arguments.max_new_tokens,
        eos=model.eos_token_ids,
        meter=meter,
    )["transformers"]
    differences = [difference for case in found for difference in case]
    verdicts = [difference.verdict for difference in differences]
    row = {
        "prompts": len(cases),
        "identical": sum(not case for case in found),
        "tokens": sum(len(case.token_ids) for case in cases),
        "ties": verdicts.count("tie"),
        "faults": verdicts.count("fault"),
        "noise": "not needed" if not differences else f"{meter.limit:.2g}",
    }
    chosen = f"Model {model.name}, torch, float32; {len(cases)} prompts of {arguments.data.name}, spread over its "
    chosen += f"categories; max_new_tokens {arguments.max_new_tokens}."
    parts = ["# unspool on torch against transformers' generate, greedy", common.describe(setting), chosen]
    parts.append(common.table(list(row), [list(row.values())]))
    if differences:
        rows = [[*asdict(difference).values()] for difference in differences]
        parts.append(common.table(list(asdict(differences[0])), rows))
    results = {**setting, "chosen": chosen, "result": row, "differences": [asdict(d) for d in differences]}
    common.publish("\n\n".join(parts), results, arguments.markdown, arguments.json)
    return 1 if row["faults"] else 0


if __name__ == "__main__":
    common.run(main)
