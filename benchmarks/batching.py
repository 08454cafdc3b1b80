"""Batches on the torch backend: are the rows of EQSPEC and EXSPEC the rows alone, and what does sharing a pass bring?

- exact: rows whose text is that of plain decoding of the row alone; prefix: the mean share of a text before it parts
  from it. A batch groups its sums in another way, so a near-tie of two tokens may fall the other way: margin is the
  largest gap between the two best logits at which a text parted. Above 0.001 (float32) the run fails.
- tokens/s: of decoding, prefill left out; plain batches against speculative ones at equal batch sizes.
- realigned: share of that time spent on bringing the rows' caches into step: joining them for a pass, and moving
  accepted entries to their place. A row alone has this cost too.
- grouped: share of the passes whose rows had equal length, by the window of EXSPEC over its batch size.

Greedy, end of text respected, one run each, prompts cut to 1024 tokens. On few processor cores a pass of B rows with
drafts is bound by arithmetic early, so the gain of speculation shrinks as B grows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import takewhile
from pathlib import Path
from typing import Any

import common

from unspool import methods, suites
from unspool.backends.torch.cache import PassCache, RowCache
from unspool.bench.about import about
from unspool.decoding.load import load
from unspool.decoding.model import Model
from unspool.engine.autoregressive import Request, decode
from unspool.engine.batch import BatchPlan
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.statistics import grouping_rate
from unspool.engine.trace import PrefillEvent, StepEvent
from unspool.methods.acceptance._follow import Follow
from unspool.methods.batching.eqspec import EqSpec, EqSpecOptions
from unspool.methods.batching.exspec import ExSpec, ExSpecOptions

LONGEST_PROMPT = 1024
TIE = 1e-3


@dataclass(frozen=True)
class Run:
    """All prompts, decoded in batches of one kind."""

    texts: list[list[int]]
    margins: list[list[float]]
    seconds: float
    realigned: float
    passes: int
    grouped: float | None

    @property
    def tokens_per_second(self) -> float:
        return sum(map(len, self.texts)) / self.seconds

    def agreement(self, reference: Run) -> tuple[int, float, float]:
        """Equal texts, mean share of the reference's tokens before the first difference, largest margin at one."""
        exact, shares, margin = 0, [], 0.0
        for i, (text, expected) in enumerate(zip(self.texts, reference.texts, strict=True)):
            exact += text == expected
            same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(text, expected, strict=False))))
            shares.append(same / len(expected))
            if text != expected:
                margin = max(margin, reference.margins[i][min(same, len(expected) - 1)])
        return exact, sum(shares) / len(shares), margin


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Seconds spent in joining caches and in appending to them; one element, which grows."""
    total = [0.0]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **named)
            total[0] += time.perf_counter() - start
            return result

        return call

    parts: tuple[tuple[Any, str], ...] = ((PassCache, "update"), (RowCache, "append"))
    originals = [getattr(owner, name) for owner, name in parts]
    try:
        for (owner, name), original in zip(parts, originals, strict=True):
            setattr(owner, name, timed(original))
        yield total
    finally:
        for (owner, name), original in zip(parts, originals, strict=True):
            setattr(owner, name, original)


def run(model: Model, prompts: Sequence[list[int]], method: str, plan: BatchPlan, max_new_tokens: int) -> Run:
    resources = model.resources({})
    options = GenerationOptions(max_new_tokens=max_new_tokens)
    requests = [
        Request(ids, methods.build(method, DRAFTER, resources), Follow(), options, eos=model.eos_token_ids)
        for ids in prompts
    ]
    texts: list[list[int]] = [[] for _ in prompts]
    margins: list[list[float]] = [[] for _ in prompts]
    steps, realigned = [], 0.0
    with stopwatch() as spent:
        start = before = time.perf_counter()
        for event in decode(model.language_model, requests, plan):
            now = time.perf_counter()
            if isinstance(event, PrefillEvent):
                start += now - before
                spent[0] = realigned
            elif isinstance(event, StepEvent):
                texts[event.row] += event.emitted
                margins[event.row] += event.margins
                steps.append(event)
            before, realigned = now, spent[0]
    seconds = before - start
    passes = len({step.batch_pass for step in steps})
    return Run(texts, margins, seconds, realigned / seconds, passes, grouping_rate(steps))


def plans(sizes: Sequence[int], factors: Sequence[int], method: str) -> list[tuple[str, int, str, BatchPlan]]:
    """Name, batch size, drafter and plan of every run but the reference."""
    found: list[tuple[str, int, str, BatchPlan]] = []
    for size in sizes:
        found.append(("plain", size, "plain", EqSpec(EqSpecOptions(size))))
        found.append(("eqspec", size, method, EqSpec(EqSpecOptions(size))))
        if size > 1:
            found += [
                (f"exspec, W/B {factor}", size, method, ExSpec(ExSpecOptions(size, size * factor)))
                for factor in factors
            ]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-1.5b", help="as `unspool generate -m`")
    parser.add_argument("-a", "--assistant-model", help="draft model, for --method draft_model")
    parser.add_argument("--method", default="prompt_lookup", help="drafter; prompt_lookup by default")
    parser.add_argument("--suite", default="mixed", help="as `unspool bench`; mixed by default")
    parser.add_argument("--prompts", type=int, default=64, help="64 by default")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="128 by default")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--windows", type=int, nargs="+", default=[2, 3], help="windows of exspec, in batch sizes")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    setting = about()
    chosen_plans = plans(arguments.batch_sizes, arguments.windows, arguments.method)
    model = load(arguments.model, backend="transformers", assistant_model=arguments.assistant_model, report=common.say)
    texts = [prompt.text for prompt in suites.load(arguments.suite).prompts][: arguments.prompts]
    prompts = [model.encode(text)[:LONGEST_PROMPT] for text in texts]
    alone = run(model, prompts, "plain", EqSpec(EqSpecOptions(1)), arguments.max_new_tokens)
    columns = ["batch", "B", "passes", "tokens/s", "÷ plain alone", "realigned", "grouped", "exact", "prefix", "margin"]
    rows: list[list[str]] = []
    worst = 0.0
    for name, size, method, plan in chosen_plans:
        result = run(model, prompts, method, plan, arguments.max_new_tokens)
        exact, prefix, margin = result.agreement(alone)
        worst = max(worst, margin)
        rows.append(
            [
                name,
                str(size),
                str(result.passes),
                common.number(result.tokens_per_second, 1),
                common.number(result.tokens_per_second / alone.tokens_per_second),
                common.number(result.realigned * 100, 1) + " %",
                common.number(result.grouped),
                f"{exact} of {len(prompts)}",
                common.number(prefix, 3),
                common.number(margin, 5) if exact < len(prompts) else "–",
            ]
        )
        common.say(f"{name}, B {size}: {exact} of {len(prompts)} exact")
    settings = model.language_model.settings
    chosen = f"Model {model.name}, {settings['weights']}, torch; drafter {arguments.method}"
    chosen += f" ({model.assistant.name})" if model.assistant else ""
    lengths = sorted(map(len, prompts))
    chosen += f"; {len(prompts)} prompts of {arguments.suite} ({lengths[0]} to {lengths[-1]} tokens), max_new_tokens "
    chosen += f"{arguments.max_new_tokens}; {sum(map(len, alone.texts))} tokens in {alone.passes} passes by rows alone."
    markdown = "\n\n".join(("# Batches", common.describe(setting), chosen, common.table(columns, rows)))
    results = {**setting, "chosen": chosen, "rows": [dict(zip(columns, row, strict=True)) for row in rows]}
    common.publish(markdown, results, arguments.markdown, arguments.json)
    return 1 if worst > TIE else 0


if __name__ == "__main__":
    common.run(main)
