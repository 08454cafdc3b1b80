"""Checks of a probe: a pure function of states that changes no text, and an artifact once it is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.conformance import artifact
from unspool.conformance.check import CheckFailed, Row, options_of, require
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Drafter, LanguageModel
from unspool.engine.method import DRAFTER, PROBE
from unspool.engine.options import GenerationOptions
from unspool.engine.probe import Probe, States
from unspool.engine.trace import Event, ProbeEvent, StepEvent, to_json
from unspool.errors import UnspoolError
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.drafters.plain import Plain
from unspool.methods.resources import Resources
from unspool.trace.schema import problem_of


def check(
    probe: Probe,
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    drafter: Callable[[], Drafter],
    examples: Sequence[tuple[States, Any]],
    folder: Path,
) -> None:
    """Everything below.

    Args:
        model: that offers the probe's taps.
        prompts: of different requests, two or more.
        drafter: makes one whose drafts are sometimes right.
        examples: for ``fit``; without any, only the readings are checked.
        folder: empty, to write to.
    """
    for prompt in prompts:
        readings_belong_to_tokens(probe, model, prompt, drafter)
    rows_have_their_own_readings(probe, model, prompts)
    readings_are_pure(probe, model, prompts)
    if examples:
        fit_gives_an_artifact(probe, examples, folder)


def readings_belong_to_tokens(
    probe: Probe, model: LanguageModel, prompt: Sequence[int], drafter: Callable[[], Drafter]
) -> None:
    """One for each emitted token, the same with drafts and without, and the text is what it is without the probe."""
    plain = _run(model, [prompt], {}, Plain)
    alone = _run(model, [prompt], {"probe": probe}, Plain)
    drafted = _run(model, [prompt], {"probe": probe}, drafter)
    require(_text(alone) == _text(plain) == _text(drafted), "a probe changes the text")
    require(not any(isinstance(event, ProbeEvent) for event in plain), "there are readings without a probe")
    values, labels = _readings(alone)
    require(len(values) == len(_text(plain)), "not every token has a reading")
    require(_readings(drafted) == (values, labels), "the readings depend on the drafts")
    for event in drafted:
        if isinstance(event, ProbeEvent):
            problem = problem_of(json.loads(json.dumps(to_json(event), allow_nan=False)), "probe")
            require(problem is None, str(problem))


def rows_have_their_own_readings(probe: Probe, model: LanguageModel, prompts: Sequence[Sequence[int]]) -> None:
    """A batch gives each row what it gives the row alone."""
    together = _run(model, prompts, {"probe": probe}, Plain)
    for row, prompt in enumerate(prompts):
        own = [event for event in together if event.row == row]
        require(_readings(own) == _readings(_run(model, [prompt], {"probe": probe}, Plain)), f"row {row}")


def readings_are_pure(probe: Probe, model: LanguageModel, prompts: Sequence[Sequence[int]]) -> None:
    """What was read before does not matter."""
    first = _readings(_run(model, [prompts[0]], {"probe": probe}, Plain))
    _run(model, [prompts[-1]], {"probe": probe}, Plain)
    require(_readings(_run(model, [prompts[0]], {"probe": probe}, Plain)) == first, "a reading depends on earlier ones")


def fit_gives_an_artifact(probe: Probe, examples: Sequence[tuple[States, Any]], folder: Path) -> None:
    """One that can be stored, the same for the same examples; without examples there is none."""
    made = probe.fit(examples)
    artifact.check(made, folder)
    again = probe.fit(list(examples))
    same = all((again.tensors[name] == tensor).all() for name, tensor in made.tensors.items())
    require(same, "the same examples give another artifact")
    try:
        probe.fit([])
    except UnspoolError:
        return
    raise CheckFailed("a probe is trained on nothing")


def _run(
    model: LanguageModel, prompts: Sequence[Sequence[int]], probes: dict[str, Probe], make: Callable[[], Drafter]
) -> list[Event]:
    options = GenerationOptions(max_new_tokens=20)
    return list(decode(model, [Request(prompt, make(), ExactMatch(), options, probes=probes) for prompt in prompts]))


def _text(events: Sequence[Event]) -> list[int]:
    return [token for event in events if isinstance(event, StepEvent) for token in event.emitted]


def _readings(events: Sequence[Event]) -> tuple[list[float], list[str]]:
    found = [event for event in events if isinstance(event, ProbeEvent)]
    return [value for event in found for value in event.values], [label for event in found for label in event.labels]


def readings_belong_to_the_text(row: Row) -> None:
    """Every emitted token has a reading, the same with drafts and in batches; the text is as without it."""
    toy = ToyModel.random(vocab_size=6, order=3, seed=11)
    around = Resources(toy, assistant=toy.related(0.5, seed=4))
    probe = methods.build(row.name, PROBE, around, options_of(row))
    wide = methods.choose(methods.WIDE, DRAFTER)
    with TemporaryDirectory() as folder:
        check(probe, toy, [[0, 1, 2, 0], [5, 4], [2, 4, 2, 4, 2]], lambda: wide.build(around), (), Path(folder))


CHECKS = (readings_belong_to_the_text,)
