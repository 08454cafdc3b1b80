"""Masked diffusion on the CPU backends: passes and tokens per second, with and without Fast-dLLM's caches.

Every step fills the same number of slots, so that all settings of one canvas take equally many passes. Weights do not
change speed: unless ``-m`` names a directory, they are random in the shape of SmolLM2-135M. A case is one round over
all settings, so that a machine that slows down slows all of them; figures are of the rounds' medians.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from unspool.backends.prepare import quiet
from unspool.decoding.canvas import DiffusionModel
from unspool.decoding.load import load as load_model
from unspool.decoding.results import Result
from unspool.engine.canvas_request import Cache
from unspool.engine.statistics import CanvasStatistics
from unspool.engine.trace import CanvasEvent
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup

RANDOM = "random-135m"
BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "torch": ("transformers", {}),
    "openvino": ("openvino", {"weights": "fp32"}),
    "openvino-int8": ("openvino", {"weights": "int8"}),
}
CACHES: tuple[Cache, ...] = ("none", "prefix", "dual")
PROMPT, BLOCK, STEP = 32, 32, 8


def random_model(directory: Path, quick: bool) -> None:
    """A causal LM with random weights, a tokenizer of numbers, and the file that names its mask."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256 if quick else 49152,
        hidden_size=64 if quick else 576,
        intermediate_size=128 if quick else 1536,
        num_hidden_layers=2 if quick else 30,
        num_attention_heads=2 if quick else 9,
        num_key_value_heads=1 if quick else 3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    with quiet():
        LlamaForCausalLM(config).save_pretrained(directory)
    words = {str(number): number for number in range(config.vocab_size)}
    Tokenizer(WordLevel(words, unk_token="0")).save(str(directory / "tokenizer.json"))
    (directory / "canvas.json").write_text(json.dumps({"mask_id": 0}), "utf-8")


def cases(setup: Setup) -> list[Case]:
    directory = tempfile.TemporaryDirectory(prefix="unspool-canvas-speed-")
    models: dict[str, DiffusionModel] = {}
    lengths = setup.pick((64, 256), (64,))
    lines = list(product(setup.pick(BACKENDS, {"torch": BACKENDS["torch"]}), lengths, CACHES))

    def load() -> None:
        name = setup.model
        if name == RANDOM:
            random_model(Path(directory.name), setup.quick)
            name = directory.name
        for backend in dict.fromkeys(backend for backend, *_ in lines):
            kind, options = BACKENDS[backend]
            models[backend] = load_model(name, expect=DiffusionModel, backend=kind, report=setup.report, **options)
        for line in lines:
            fill(models[line[0]], *line[1:])  # warm

    def measure(round: int) -> list[Row]:
        if not models:
            load()
        results = {line: fill(models[line[0]], *line[1:]) for line in lines}
        first = lines[0][0]
        return [
            {
                "round": round,
                "backend": backend,
                "canvas": length,
                "cache": cache,
                "passes": result.statistics.passes,
                "fed": result.statistics.fed,
                "seconds": result.statistics.seconds,
                "as_first": float(np.mean(slots(result) == slots(results[first, length, cache]))),
            }
            for (backend, length, cache), result in results.items()
        ]

    return [Case(f"round {round}", partial(measure, round)) for round in range(setup.count)]


def fill(model: DiffusionModel, length: int, cache: Cache) -> Result[CanvasStatistics]:
    """Fill a canvas after a prompt of random tokens, the same for all backends; the mask is not among them."""
    tokens = np.random.default_rng(0).integers(0, model.denoiser.vocab_size - 1, PROMPT)
    return model.generate(
        [int(token) for token in tokens + (tokens >= model.denoiser.mask_id)],
        method=f"top_k:tokens_per_step={STEP}+fixed_blocks:block_length={BLOCK}",
        max_new_tokens=length,
        cache=cache,
    )


def slots(result: Result[CanvasStatistics]) -> Any:
    """The whole canvas, with what follows the end of the text."""
    return np.array([event for event in result.trace if isinstance(event, CanvasEvent)][-1].slots)


def summarise(rows: Sequence[Row]) -> Summary:
    by: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        by.setdefault((row["backend"], row["canvas"], row["cache"]), []).append(row)
    seconds = {line: median(row["seconds"] for row in own) for line, own in by.items()}
    longest = max(row["canvas"] for row in rows)
    figures = {
        f"tokens a second, {cache} / none, {backend}": Figure(
            seconds[backend, longest, "none"] / seconds[backend, longest, cache], count=len(own)
        )
        for (backend, length, cache), own in by.items()
        if length == longest and cache != "none"
    }
    table = [
        (
            f"{backend}, canvas {length}, cache {cache}",
            f"{own[0]['passes']}",
            f"{own[0]['fed'] / own[0]['passes']:.1f}",
            f"{own[0]['passes'] / seconds[backend, length, cache]:.1f}",
            f"{length / seconds[backend, length, cache]:.1f}",
            f"{100 * own[0]['as_first']:.1f}",
        )
        for (backend, length, cache), own in by.items()
    ]
    header = ("setting", "passes", "positions/pass", "passes/s", "tokens/s", "slots as torch, %")
    return Summary(figures, [Table("", header, table)])


EXPERIMENT = Experiment(
    paper="Fast-dLLM: Training-free Acceleration of Diffusion LLM (2025)",
    claim="Keys and values that are reused within a block make decoding faster, most where the canvas is long.",
    control="no cache, with as many passes",
    test="random tokens on canvases of 64 and 256 slots in blocks of 32, 8 slots a pass, on torch and OpenVINO",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect("tokens a second, prefix / none, torch", at_least=1.2, cases=3),
        Expect("tokens a second, dual / none, torch", at_least=1.5, cases=3),
    ],
    model=RANDOM,
    quick_model=RANDOM,
    count=5,
    timed=True,
    minutes=10,
)
