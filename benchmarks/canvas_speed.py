"""Masked diffusion on CPU backends: how many passes and tokens a second, with and without caches?

- passes/s, tokens/s: passes, and slots that they filled, in the time spent in the model. Prompts are random tokens and
  every slot counts, whatever the text is: this is about speed alone.
- fed: positions that a pass scored on average; caches leave some out.
- ÷ none: tokens/s over those of the same backend and canvas without a cache.
- as first: share of the slots that hold what the first backend put there with the same canvas and cache.

Every step fills the same number of slots, so all settings of one canvas take equally many passes. Each setting runs
once to warm up; then settings take turns, so that a machine that slows down slows all of them. Figures are of the run
of median time.

The model needs room for the prompt and the longest canvas. Weights do not change speed: any causal LM in Hugging Face
layout will do, with a ``canvas.json`` beside it that names a mask, such as ``{"mask_id": 0}``.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

import common
import numpy as np
import psutil
import torch

from unspool.bench.about import about
from unspool.decoding.canvas import DiffusionModel
from unspool.decoding.load import load
from unspool.decoding.results import Result
from unspool.engine.canvas_request import Cache
from unspool.engine.statistics import CanvasStatistics
from unspool.engine.trace import CanvasEvent
from unspool.errors import UnspoolError

BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "torch": ("transformers", {}),
    "openvino": ("openvino", {"weights": "fp32"}),
    "openvino-int8": ("openvino", {"weights": "int8"}),
}
CACHES: tuple[Cache, ...] = get_args(Cache)


@dataclass(frozen=True)
class Line:
    """What one line of the table measures."""

    backend: str
    canvas: int
    cache: Cache


def prompt_of(model: DiffusionModel, length: int) -> list[int]:
    """Random tokens, the same for all backends; the mask is not among them."""
    tokens = np.random.default_rng(0).integers(0, model.denoiser.vocab_size - 1, length)
    return [int(token) for token in tokens + (tokens >= model.denoiser.mask_id)]


def fill(
    model: DiffusionModel, line: Line, prompt_length: int, block_length: int, step: int
) -> Result[CanvasStatistics]:
    return model.generate(
        prompt_of(model, prompt_length),
        method=f"top_k:tokens_per_step={step}+fixed_blocks:block_length={block_length}",
        max_new_tokens=line.canvas,
        cache=line.cache,
    )


def slots(result: Result[CanvasStatistics]) -> tuple[int | None, ...]:
    """The whole canvas, with what stands behind the end of the text."""
    return [event for event in result.trace if isinstance(event, CanvasEvent)][-1].slots


def measured(results: dict[Line, list[Result[CanvasStatistics]]], backends: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    medians = {
        line: sorted(runs, key=lambda run: run.statistics.seconds)[len(runs) // 2] for line, runs in results.items()
    }
    for line, run in medians.items():
        figures = run.statistics
        plain = medians[Line(line.backend, line.canvas, "none")].statistics.seconds
        first = slots(medians[Line(backends[0], line.canvas, line.cache)])
        same = sum(one == other for one, other in zip(slots(run), first, strict=True))
        rows.append(
            {
                **asdict(line),
                "passes": figures.passes,
                "fed": figures.fed / figures.passes,
                "passes_per_second": figures.passes / figures.seconds,
                "tokens_per_second": line.canvas / figures.seconds,
                "over_none": plain / figures.seconds,
                "as_first": same / line.canvas,
                "seconds": [result.statistics.seconds for result in results[line]],
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    header = ["backend", "canvas", "cache", "passes", "fed", "passes/s", "tokens/s", "÷ none", "as first"]
    cells = [
        [
            *(row[name] for name in ("backend", "canvas", "cache", "passes")),
            *(common.number(row[name], 1) for name in ("fed", "passes_per_second", "tokens_per_second")),
            common.number(row["over_none"]),
            common.number(row["as_first"] * 100, 1) + " %",
        ]
        for row in rows
    ]
    return common.table(header, cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, help="directory of a diffusion model")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS), help="all by default")
    parser.add_argument("--canvas", type=int, nargs="+", default=[64, 256], help="slots; 64 and 256 by default")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of the prompt; 32 by default")
    parser.add_argument("--block-length", type=int, default=32, help="32 by default")
    parser.add_argument("--tokens-per-step", type=int, default=2, help="slots that a pass fills; 2 by default")
    parser.add_argument("--runs", type=int, default=3, help="timed runs of each setting; 3 by default")
    parser.add_argument("--threads", type=int, help="of both backends; the physical cores by default")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    threads = psutil.cpu_count(logical=False) or 1 if arguments.threads is None else arguments.threads
    if threads < 1 or arguments.runs < 1 or arguments.prompt < 1:
        raise UnspoolError("--threads, --runs and --prompt must be at least 1")
    setting = about()
    torch.set_num_threads(threads)
    models = {}
    for name in dict.fromkeys(arguments.backends):
        backend, options = BACKENDS[name]
        own = {"threads": threads} if backend == "openvino" else {}
        models[name] = load(arguments.model, backend=backend, report=common.say, **options, **own)
    lines = [Line(*each) for each in product(models, dict.fromkeys(arguments.canvas), CACHES)]
    results: dict[Line, list[Result[CanvasStatistics]]] = {line: [] for line in lines}
    for run in range(arguments.runs + 1):
        for line in lines:
            result = fill(
                models[line.backend], line, arguments.prompt, arguments.block_length, arguments.tokens_per_step
            )
            if run:
                results[line].append(result)
        common.say(f"run {run} of {arguments.runs}" if run else "warm")
    rows = measured(results, list(models))
    chosen = (
        f"Model {arguments.model}; prompt of {arguments.prompt} random tokens, blocks of {arguments.block_length}, "
        f"{arguments.tokens_per_step} slots a pass; {threads} threads; median of {arguments.runs} runs."
    )
    settings = {name: model.denoiser.settings for name, model in models.items()}
    markdown = "\n\n".join(("# Canvases", common.describe(setting), chosen, table(rows)))
    results_json = {**setting, "chosen": chosen, "settings": settings, "rows": rows}
    common.publish(markdown, results_json, arguments.markdown, arguments.json)


if __name__ == "__main__":
    common.run(main)
