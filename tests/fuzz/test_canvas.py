"""Any parts of the denoise loop together, on random checkpoints of LLaDA and Dream and on the shipped model.

Given slots stay, every hole is committed once, no pass is empty, a row equals the row alone, a run equals its
repetition, OpenVINO equals torch, and what a grammar allows is parsed by Earley's parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from lark import Lark

from tests import trained
from tests.backends.test_diffusion_checkpoints import DREAM, LLADA, VOCAB, written
from tests.fuzz import canvas_cases
from tests.specs import canvas
from unspool.backends import diffusion as diffusion_models
from unspool.decoding.canvas import DiffusionModel
from unspool.decoding.load import load
from unspool.engine.canvas import Denoiser
from unspool.engine.canvas_request import CanvasOptions, CanvasRequest
from unspool.engine.denoise import denoise
from unspool.engine.trace import CanvasEvent, Event
from unspool.methods import Resources
from unspool.methods._compose import composed
from unspool.recipes.tiny_diffusion.tasks import held_out
from unspool.recipes.tiny_diffusion.train import TASK_SETS

QUICK, NIGHTLY = 25, 300
END, MASK = VOCAB - 2, VOCAB - 1
FAMILIES = {"llada": LLADA | {"max_sequence_length": 96}, "dream": DREAM | {"max_position_embeddings": 96}}
GRAMMARS = {
    "list": 'start: LETTER ("," LETTER)*\nLETTER: /[a-z]/',
    "maybe": 'start: (LETTER ("," LETTER)*)?\nLETTER: /[a-z]/',
    "sum": 'start: sum\nsum: item (("+"|"-") item)*\nitem: NUM | "(" sum ")"\nNUM: /0|[1-9][0-9]*/',
    "digits": "start: /[0-9][0-9][0-9][0-9]/",
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories of random checkpoints, with a filter for ``learn2pd`` that nobody trained."""
    made = {}
    for name, config in FAMILIES.items():
        made[name] = tmp_path_factory.mktemp("checkpoints") / name
        written(made[name], config)
        numbers = np.random.default_rng(0)
        shapes: list[Any] = [(6, 6), 6, (6, 6), 6]
        trained.unmask_filter(made[name], *(numbers.normal(size=shape).astype(np.float32) for shape in shapes))
    return made


def loaded(directory: Path, backend: str) -> Denoiser:
    options = {"threads": 1} if backend == "openvino" else {}
    return diffusion_models.load(directory, backend, lambda message: None, options)


def faults(slots: Sequence[int | None], options: CanvasOptions, out: list[int], events: list[CanvasEvent]) -> list[str]:
    """What no canvas may do."""
    holes = [i for i, slot in enumerate(slots) if slot is None]
    committed = [i for event in events for i in event.committed]
    cut = options.truncate_at_eos is not None
    checks = {
        "a mask is left": MASK not in out and None not in out,
        "slots of another number": len(out) == len(slots),
        "more passes than holes": len(events) <= len(holes),
        "a given slot changed": cut or all(slot in (None, token) for slot, token in zip(slots, out, strict=True)),
        "a slot was committed twice": len(committed) == len(set(committed)),
        "not all holes were committed": cut or options.stop_at_eos or sorted(committed) == holes,
        "a pass committed nothing": all(event.committed for event in events),
        "a confidence outside 0 to 1": all(0 <= c <= 1 for event in events for c in event.confidence),
    }
    pairs = [pair for a, b in pairwise(events) for pair in zip(a.slots, b.slots, strict=True)]
    checks["a committed slot changed"] = cut or all(before in (None, after) for before, after in pairs)
    return [what for what, holds in checks.items() if not holds]


def one(case: int, models: dict[str, list[Denoiser]], directories: dict[str, Path]) -> list[str]:
    """Rows of other prompts and canvases in one batch."""
    rng = Random(case)
    name = rng.choice(list(models))
    rows = rng.choice([1, 2, 3, 4])
    canvases = []
    for _ in range(rows):
        prompt = [rng.randrange(END) for _ in range(rng.choice([1, 3, 9, 20]))]
        slots = [None if rng.random() < 0.75 else rng.randrange(END) for _ in range(rng.choice([2, 7, 12, 24]))]
        slots[rng.randrange(len(slots))] = None
        given = any(slot is not None for slot in slots)
        canvases.append((prompt, slots, canvas_cases.settings(rng, plain=given)))
    shortest = min(len(slots) for _, slots, _ in canvases)
    method, values = canvas_cases.parts(rng, shortest, [3, 5, 7], learned=True)
    if len({len(slots) for _, slots, _ in canvases}) > 1:
        values.pop("fixed_blocks", None)  # a length that divides one does not divide the other
        method = "+".join(part for part in method.split("+") if part != "fixed_blocks") or "threshold"
    parts = composed(canvas(method, values), Resources(delimiters=lambda: [3, 5, 7], directory=directories[name]))

    def filled(model: Denoiser, which: Sequence[int]) -> tuple[list[list[int]], list[Event]]:
        events: list[Event] = []
        requests = [CanvasRequest(canvases[i][0], canvases[i][1], parts(), canvases[i][2], method) for i in which]
        return denoise(model, requests, events.append), events

    reference, *others = models[name]
    out, events = filled(reference, range(rows))
    told = f"case {case}, {name}, {method} {values}"
    found = []
    for row, (_, slots, options) in enumerate(canvases):
        own = [event for event in events if isinstance(event, CanvasEvent) and event.row == row]
        found += [f"{told}, row {row}: {fault}" for fault in faults(slots, options, out[row], own)]
        if filled(reference, [row])[0] != [out[row]]:
            found.append(f"{told}, row {row}: not the row alone")
    for model in others:
        if filled(model, range(rows))[0] != out:
            found.append(f"{told}: backends differ")
    return found


def test_a_few_canvases(checkpoints: dict[str, Path]) -> None:
    models = {name: [loaded(directory, "transformers")] for name, directory in checkpoints.items()}
    assert not [fault for case in range(QUICK) for fault in one(case, models, checkpoints)]


@pytest.mark.nightly
def test_many_canvases_on_both_backends(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path))
    backends = ("transformers", "openvino")
    models = {name: [loaded(directory, one) for one in backends] for name, directory in checkpoints.items()}
    cases = range(QUICK, QUICK + NIGHTLY)
    assert not [fault for case in cases for fault in one(case, models, checkpoints)]


def grammatical(case: int, model: DiffusionModel) -> list[str]:
    """Prompts of the shipped model under a grammar."""
    rng, tasks = Random(case), TASK_SETS["short"]
    name = rng.choice(list(GRAMMARS))
    method, values = canvas_cases.parts(rng, tasks.canvas_length, [3, 5, 7], learned=True)
    prompts = [tasks.prompt_ids(held_out(task, 2)[1].prompt) for task in rng.sample(tasks.tasks, 2)]
    options = vars(canvas_cases.settings(rng, plain=True)) | {"guidance_scale": 0.0}
    call = {"method": canvas(method, values), "grammar": GRAMMARS[name], **options}
    results = model.generate(prompts, **call)
    found = [] if [one.text for one in model.generate(prompts, **call)] == [one.text for one in results] else ["again"]
    parser = Lark(GRAMMARS[name], parser="earley", lexer="dynamic")
    end = model.denoiser.eos_token_id
    for prompt, result in zip(prompts, results, strict=True):
        text = "".join(tasks.vocabulary[token] for token in result.token_ids if token != end)
        try:
            parser.parse(text)
        except Exception as error:
            found.append(f"{text!r} is not in {name}: {error}")
        if model.generate(prompt, **call).token_ids != result.token_ids:
            found.append(f"not the row alone: {result.text!r}")
    return [f"case {case}, {method} {values}: {one}" for one in found]


def test_a_few_texts_of_a_grammar() -> None:
    model = load("tiny-diffusion")
    assert not [fault for case in range(4) for fault in grammatical(case, model)]


@pytest.mark.nightly
def test_many_texts_of_a_grammar() -> None:
    model = load("tiny-diffusion")
    assert not [fault for case in range(4, 64) for fault in grammatical(case, model)]
