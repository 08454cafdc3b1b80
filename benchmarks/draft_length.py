"""How long should a draft be? SpecDec++ and PEARL against fixed lengths and simpler rules, counted in passes.

Rules are replayed on one recording (``draft_replay``); the engine itself decodes with ``specdec_pp`` and ``pearl``,
whose texts and passes must be those of plain decoding and of the replay.

- Draft length: discarded drafts and verifications, both per token, of fixed lengths 1 to 12, of SpecDec++'s rule by
  threshold, and of the rules that the paper does not compare with: confidence of the newest token, product of
  confidences, entropy, transformers' schedule (+2, -1), and a small model of log q, entropy and margin. The last is
  fitted on the first half of the prompts; everything is counted on the second half. A speed follows for a draft model
  that is c times as fast; the oracle drafts exactly what will be accepted.
- How well a token's acceptance is foreseen: AUC and divergence, and predicted against true acceptance.
- PEARL on a clock that two processors would have, a step being max(block, pass), next to a draft model of the best
  fixed length on the same clock, and the paper's formula with the acceptance rate of the run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import numpy as np
from draft_replay import (
    LENGTHS,
    Text,
    draft_along,
    fit_features,
    fixed,
    formula,
    inputs,
    oracle,
    pearl,
    replay,
    rules,
    trained,
    untrained,
)

from unspool.bench.about import about
from unspool.decoding.load import load
from unspool.decoding.model import Model
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Drafter
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.errors import UnspoolError
from unspool.methods.acceptance._follow import Follow
from unspool.methods.drafters.pearl import Pearl, PearlOptions
from unspool.methods.drafters.specdec_pp import SpecDecPP, SpecDecPPOptions
from unspool.methods.drafters.specdec_pp.head import AcceptanceHead
from unspool.methods.drafters.specdec_pp.train import measures
from unspool.methods.shaping import _built_in as shaping
from unspool.proof.prompts import PROMPTS
from unspool.suites.prompts import read_prompts
from unspool.training.artifact import Artifact


def run(model: Model, drafter: Drafter, ids: list[int], options: GenerationOptions) -> tuple[list[int], int]:
    """Text and number of passes of the engine."""
    request = Request(ids, drafter, Follow(), options, shaping.build(options), model.eos_token_ids)
    events = [event for event in decode(model.language_model, [request]) if isinstance(event, StepEvent)]
    return [token for event in events for token in event.emitted], len(events)


def length_table(texts: Sequence[Text], head: bool, ratios: Sequence[float]) -> tuple[list[str], list[list[str]]]:
    counted = {name: replay(texts, rule) for name, rule in rules(head).items()}
    counted |= {"transformers' schedule": replay(texts, None), "oracle": oracle(texts)}
    rows = []
    for name, found in counted.items():
        rates = (found.discarded / found.tokens, found.passes / found.tokens, found.drafted / found.passes)
        rows.append([name, *(common.number(x, 3) for x in (*rates, *map(found.speed, ratios)))])
    return ["rule", "discarded/token", "passes/token", "drafted/pass", *(f"speed, c={c:g}" for c in ratios)], rows


def foresight(texts: Sequence[Text], head: bool) -> tuple[list[list[str]], dict[str, Any]]:
    found = {}
    for name in (["head"] if head else []) + ["q", "features"]:
        pairs = [(getattr(c, name), text.right(at)) for text in texts for at, c in enumerate(text.drafted)]
        found[name] = measures(*(np.array(part, dtype=float) for part in zip(*pairs, strict=True)))
    names = {"head": "SpecDec++'s head", "q": "the draft's own probability", "features": "log q, entropy, margin"}
    rows = [
        [
            names[key],
            common.number(m["auc"], 3),
            common.number(m["kl"], 3),
            " ".join(f"{p:.2f}→{a:.2f}" for _, p, a in m["reliability"]),
        ]
        for key, m in found.items()
    ]
    return rows, found


def pearl_table(texts: Sequence[Text], ratios: Sequence[float]) -> list[list[str]]:
    rows = []
    for c in ratios:
        ordinary = {k: replay(texts, fixed(k)).speed(c) for k in LENGTHS}
        best = max(ordinary, key=lambda k: ordinary[k])
        gamma = max(1, round(c))
        tokens, passes, tests, rejections = pearl(texts, gamma)
        alpha, clock = 1 - rejections / tests, max(1.0, gamma / c)
        figures = (alpha, tokens / passes, formula(alpha, gamma) if alpha < 1 else float(gamma))
        speeds = (tokens / passes / clock, ordinary[best], tokens / passes / clock / ordinary[best])
        rows.append([f"{c:g}", str(gamma), *(common.number(x, 3) for x in (*figures, *speeds)), str(best)])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-1.5b", help="as `unspool generate -m`")
    parser.add_argument("--assistant-model", default="qwen2.5-coder-0.5b", help="as `unspool generate`")
    parser.add_argument(
        "--head", type=Path, help="trained head of SpecDec++; without it only the other rules are shown"
    )
    parser.add_argument("--prompts", type=Path, help="as `unspool bench`; unspool's own by default")
    parser.add_argument("--limit", type=int, help="only the first prompts")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="128 by default")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 by default; above, drafts share the noise")
    parser.add_argument("--ratios", type=float, nargs="+", default=[3.0, 5.0, 10.0], help="speeds of draft to target")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    prompts = (read_prompts(arguments.prompts) if arguments.prompts else list(PROMPTS))[: arguments.limit]
    if len(prompts) < 2:
        raise UnspoolError("give at least two prompts: the first half fits a rule, the second half measures all")
    setting = about()
    head = AcceptanceHead(Artifact.load(arguments.head, "specdec_pp")) if arguments.head else None
    model = load(arguments.model, assistant_model=arguments.assistant_model, report=common.say)
    assert model.assistant is not None
    draft, size = model.assistant.language_model, model.language_model.vocab_size
    options = GenerationOptions(max_new_tokens=arguments.max_new_tokens, temperature=arguments.temperature)
    chosen_head = str(arguments.head) if arguments.head else None
    texts: list[Text] = []
    identical = passes_agree = 0
    gamma = PearlOptions().num_assistant_tokens
    shipped = SpecDecPPOptions()
    stop = trained(shipped.stop_threshold) if head else untrained(shipped.stop_threshold, shipped.min_assistant_tokens)
    for i, prompt in enumerate(prompts, 1):
        ids = model.encode(prompt.text)
        result = model.generate(
            ids, method="plain", max_new_tokens=arguments.max_new_tokens, temperature=arguments.temperature
        )
        texts.append(draft_along(model, ids, result.token_ids, options, head))
        parallel = Pearl(PearlOptions(), draft, size)
        theirs = run(model, SpecDecPP(SpecDecPPOptions(head=chosen_head), draft, size, head), ids, options)
        ours = run(model, parallel, ids, options)
        parallel.close()
        identical += theirs[0] == ours[0] == result.token_ids
        passes_agree += (theirs[1], ours[1]) == (replay(texts[-1:], stop).passes, pearl(texts[-1:], gamma)[1])
        common.say(f"prompt {i} of {len(prompts)}")
    half = len(texts) // 2
    w = fit_features(texts[:half])
    for text in texts[half:]:
        for c in [*text.drafted, *(c for branch in text.branches.values() for c in branch)]:
            c.features = float(1 / (1 + np.exp(-np.dot(inputs(c), w))))
    measured = texts[half:]
    columns, lengths = length_table(measured, head is not None, arguments.ratios)
    foreseen, details = foresight(measured, head is not None)
    clock = pearl_table(measured, arguments.ratios)
    _, _, tests, rejections = pearl(measured, gamma)
    count = sum(len(text.output) for text in measured)
    chosen = (
        f"{draft.settings['weights']} {model.assistant.name} drafts for {model.language_model.settings['weights']} "
        f"{model.name}; {len(measured)} of {len(prompts)} prompts, {count} tokens, "
        f"temperature {arguments.temperature:g}. Texts of specdec_pp and pearl identical to plain decoding's: "
        f"{identical} of {len(prompts)}; passes those of the replay: {passes_agree} of {len(prompts)}."
    )
    speed = "Speeds are tokens in the time of one pass of the target; a pass is taken to cost the same for any draft."
    runs = f"From rejection to rejection pearl emits {tests / max(1, rejections):.1f} tokens on average."
    clock_columns = ["c", "block", "accepted", "tokens/pass", "formula", "pearl", "draft_model", "÷", "its best length"]
    parts = (
        "# Draft length",
        common.describe(setting),
        chosen,
        "## When a draft ends",
        speed,
        common.table(columns, lengths),
        "## What is foreseen of a token",
        common.table(["from", "AUC", "KL", "predicted→true"], foreseen),
        "## PEARL, on a clock of two processors",
        runs,
        common.table(clock_columns, clock),
    )
    results = {
        **setting,
        "chosen": chosen,
        "lengths": [dict(zip(columns, row, strict=True)) for row in lengths],
        "foresight": details,
        "pearl": [dict(zip(clock_columns, row, strict=True)) for row in clock],
    }
    common.publish("\n\n".join(parts), results, arguments.markdown, arguments.json)
    return 1 if identical < len(prompts) else 0


if __name__ == "__main__":
    common.run(main)
