"""Identities of the parts of the denoise loop, bit for bit: slots, commits and confidences of every pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import trained
from tests.specs import canvas
from unspool.conformance.canvas_model import Whatever
from unspool.decoding.load import load
from unspool.engine.canvas import BlockState, Denoiser
from unspool.engine.canvas_request import CanvasOptions, CanvasRequest, Parts
from unspool.engine.denoise import denoise
from unspool.engine.trace import CanvasEvent, Event
from unspool.methods import Resources
from unspool.methods._compose import composed
from unspool.recipes.tiny_diffusion.tasks import held_out
from unspool.recipes.tiny_diffusion.train import TASK_SETS

INF = float("inf")
SLOTS = 24
Method = tuple[str, dict[str, dict[str, Any]]]

EIGHT: dict[str, dict[str, Any]] = {"fixed_blocks": {"block_length": 8}}
ONE_BY_ONE: Method = ("top_k", {})
PAIRS: dict[str, tuple[Method, Method]] = {
    "credit without weight": (("credit+threshold", {"credit": {"alpha": 0.0}}), ("threshold", {})),
    "credit that keeps all": (("credit+threshold", {"credit": {"kept": SLOTS}}), ("credit+threshold", {})),
    "a threshold nobody reaches": (("threshold", {"threshold": {"threshold": INF}}), ONE_BY_ONE),
    "a tiny factor": (("factor", {"factor": {"factor": 1e-12}}), ONE_BY_ONE),
    "an entropy nobody has": (
        ("entropy_threshold", {"entropy_threshold": {"threshold": -1.0}}),
        ("top_k", {"top_k": {"order": "entropy"}}),
    ),
    "localleap without relaxation": (
        ("localleap", {"localleap": {"threshold": 0.9, "relaxed_threshold": 0.9}}),
        ("threshold", {}),
    ),
    "localleap without neighbours": (
        ("localleap", {"localleap": {"radius": 0, "relaxed_threshold": 0.1}}),
        ("threshold", {}),
    ),
    "prophet that never stops": (
        ("prophet+top_k", {"prophet": {"high": INF, "middle": INF, "low": INF}, "top_k": {"tokens_per_step": 4}}),
        ("top_k", {"top_k": {"tokens_per_step": 4}}),
    ),
    "a filter that lets nothing pass": (("fixed_blocks+learn2pd", EIGHT), ("fixed_blocks+top_k", EIGHT)),
    "a bound without end": (
        ("eb_sampler", {"eb_sampler": {"gamma": INF}}),
        ("threshold", {"threshold": {"threshold": 0.0}}),
    ),
    "one block": (("fixed_blocks+threshold", {"fixed_blocks": {"block_length": SLOTS}}), ("threshold", {})),
    "a stop that never comes": (("static_stop+threshold", {"static_stop": {"passes": 10**6}}), ("threshold", {})),
    "delimiters nobody is sure of": (
        ("adablock+threshold", {"adablock": {"delimiter_threshold": INF, "block_length": 12}}),
        ("fixed_blocks+threshold", {"fixed_blocks": {"block_length": 12}}),
    ),
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a filter that lets nothing pass."""
    made: Path = tmp_path_factory.mktemp("filter")
    zeros = np.zeros((8, 8), np.float32)
    trained.unmask_filter(made, zeros, np.zeros(8, np.float32), zeros, np.full(8, -99, np.float32))
    return made


def passes(model: Denoiser, prompt: list[int], parts: Parts, **options: Any) -> tuple[list[int], list[Any]]:
    events: list[Event] = []
    request = CanvasRequest(prompt, [None] * SLOTS, parts, CanvasOptions(**options))
    (out,) = denoise(model, [request], events.append)
    seen = [event for event in events if isinstance(event, CanvasEvent)]
    return out, [(event.step, event.slots, event.committed, event.confidence, event.fed) for event in seen]


def same(model: Denoiser, prompts: list[list[int]], directory: Path) -> None:
    around = Resources(delimiters=lambda: [3, 5], directory=directory)
    for name, pair in PAIRS.items():
        one, other = (composed(canvas(method, values), around) for method, values in pair)
        for prompt in prompts:
            assert passes(model, prompt, one()) == passes(model, prompt, other()), name
    single = composed("fixed_blocks:block_length=1+threshold", around)
    for cache in ("prefix", "dual"):
        for prompt in prompts:
            (out, cached), (plain, whole) = (passes(model, prompt, single(), cache=c) for c in (cache, "none"))
            assert (out, [one[:4] for one in cached]) == (plain, [one[:4] for one in whole]), cache


class Oracle:
    """Commits every slot that holds the token of a reference text."""

    def __init__(self, reference: list[int], first: int) -> None:
        self._reference, self._first = np.array(reference), first

    def start_block(self, view: BlockState) -> None: ...

    def select(self, view: BlockState) -> np.ndarray:
        start = view.start - self._first
        return view.tokens == self._reference[start : start + len(view.masked)]


@pytest.mark.parametrize("seed", range(3))
def test_identities_on_any_logits(seed: int, directory: Path) -> None:
    same(Whatever(vocab_size=7 + seed, sharpness=1.5 * (seed + 1)), [[1], [2, 3], [4, 4, 1]], directory)


@pytest.mark.parametrize("seed", range(8))
def test_an_oracle_gives_its_reference(seed: int) -> None:
    """What it agrees with is committed; the loop commits one slot where it agrees with none."""
    blocks = composed(canvas("fixed_blocks+top_k", EIGHT), Resources())
    reference, steps = passes(Whatever(9, sharpness=6.0), [seed, 1], blocks())
    parts = blocks()
    out, fewer = passes(Whatever(9, sharpness=6.0), [seed, 1], Parts(Oracle(reference, 2), parts.schedule))
    agreed = [slot for _, _, committed, _, _ in fewer for slot in committed if len(committed) > 1]
    assert len(fewer) <= len(steps) and all(out[slot] == reference[slot] for slot in agreed)


@pytest.mark.nightly
def test_identities_on_the_shipped_model(directory: Path) -> None:
    tasks = TASK_SETS["short"]
    prompts = [tasks.prompt_ids(example.prompt) for task in tasks.tasks for example in held_out(task, 6)]
    same(load("tiny-diffusion").denoiser, prompts, directory)
