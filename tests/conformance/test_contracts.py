"""Probes, ensembles, channels, compressors: whatever is registered, tiny examples, and faults that checks must see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.conformance.contracts import Half, Mean, Repeat
from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.conformance import channel, compressor, ensemble, probe
from unspool.engine.autoregressive import Request, decode
from unspool.engine.channel import Decoded, Word
from unspool.engine.contracts import Logits
from unspool.engine.ensemble import Ensemble, Member
from unspool.engine.method import CHANNEL, COMPRESSOR, PROBE
from unspool.engine.options import GenerationOptions
from unspool.engine.probe import Reading, States
from unspool.engine.progress import Progress
from unspool.engine.taps import OUTPUT, Taps
from unspool.engine.trace import EndEvent, StepEvent
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError, UnsupportedError
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.drafters.draft_model import DraftModel, DraftModelOptions
from unspool.methods.drafters.plain import Plain

TOY = ToyModel.random(vocab_size=6, order=3, seed=11)
PROMPTS = [[0, 1, 2, 0], [5, 4], [2, 4, 2, 4, 2]]
TREE = TokenTree((3, 1, 2, 5, 1), (-1, 0, 0, 2, 1))
EXAMPLES = [
    (States((1,), 4, {OUTPUT: np.ones((1, 21), np.float32), 0: np.ones((1, 6), np.float32)}, {}), value)
    for value in (1.0, -2.0)
]


def drafter() -> DraftModel:
    return DraftModel(DraftModelOptions(3), TOY.related(0.5, seed=4), 6)


def directory(path: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes)).save_pretrained(path)
    return path


@pytest.mark.parametrize("row", methods.of_kind(PROBE), ids=str)
def test_registered_probes(row: methods.Row, tmp_path: Path) -> None:
    made = methods.choose(row.name, PROBE, row.trial).build(methods.Resources(TOY))
    probe.check(made, TOY, PROMPTS, drafter, (), tmp_path)


@pytest.mark.parametrize("row", methods.of_kind(CHANNEL), ids=str)
def test_registered_channels(row: methods.Row) -> None:
    assert channel.check(methods.choose(row.name, CHANNEL, row.trial).build(methods.Resources()), 4) > 1


@pytest.mark.parametrize("row", methods.of_kind(COMPRESSOR), ids=str)
def test_registered_compressors(row: methods.Row, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    made = methods.choose(row.name, COMPRESSOR, row.trial).build(methods.Resources())
    compressor.check(made, directory(tmp_path / "in"), tmp_path / "out")


# Probes.


def test_a_probe(tmp_path: Path) -> None:
    probe.check(Mean(np.arange(21) % 5 - 2), TOY, PROMPTS, drafter, EXAMPLES, tmp_path)


class Remembers(Mean):
    def read(self, states: States) -> Reading:
        self.direction = self.direction + 1
        return super().read(states)


class Mislabels(Mean):
    def read(self, states: States) -> Reading:
        return Reading(super().read(states).values, ("x",))


class SeesDrafts(Mean):
    def read(self, states: States) -> Reading:
        return Reading(tuple(float(len(states.tokens)) for _ in states.tokens))


def test_the_checks_of_probes_see_faults(tmp_path: Path) -> None:
    direction = np.arange(21) % 5 - 2
    with pytest.raises(AssertionError, match="depends on earlier"):
        probe.readings_are_pure(Remembers(direction), TOY, PROMPTS)
    with pytest.raises(AssertionError, match="depend on the drafts"):
        probe.readings_belong_to_tokens(SeesDrafts(direction), TOY, PROMPTS[0], drafter)
    request = Request([0, 1], drafter(), ExactMatch(), GenerationOptions(), probes={"mine": Mislabels(direction)})
    with pytest.raises(ValueError, match="probe mine gives 1 labels for 4 tokens"):
        list(decode(TOY, [request]))


def test_what_a_probe_cannot_read_is_refused_before_work() -> None:
    class Deep(Mean):
        taps = Taps((3,))

    def ask(**more: Any) -> None:
        options = GenerationOptions(max_new_tokens=3)
        list(decode(TOY, [Request([0, 1], Plain(), ExactMatch(), options, probes={"deep": more.pop("probe")}, **more)]))

    with pytest.raises(UnsupportedError, match="probe deep reads layer 3, but the model has layers 0 to 0"):
        ask(probe=Deep(np.zeros(21)))
    with pytest.raises(UnspoolError, match="leave out the session"):
        ask(probe=Mean(np.zeros(21)), session=TOY.open())


def test_a_probe_that_fails_ends_its_row_alone() -> None:
    class Fails(Mean):
        def read(self, states: States) -> Reading:
            raise UnspoolError("it fails")

    options = GenerationOptions(max_new_tokens=5)
    requests = [
        Request([0, 1], Plain(), ExactMatch(), options, probes={"fails": Fails(np.zeros(21))}),
        Request([0, 1], Plain(), ExactMatch(), options),
    ]
    events = []
    with pytest.raises(UnspoolError, match="it fails"):
        for event in decode(TOY, requests):
            events.append(event)
    assert {e.row: e.reason for e in events if isinstance(e, EndEvent)} == {0: "error", 1: "length"}


# Ensembles.


def weighted(rows: Sequence[Logits]) -> Logits:
    return 1.5 * rows[0] - 0.5 * rows[1]


def test_an_ensemble() -> None:
    other = TOY.related(0.7, seed=2)
    for members in ([Member(TOY), Member(TOY, [5, 4])], [Member(TOY, [1]), Member(other, [2, 3, 4])]):
        ensemble.check(Ensemble(members, weighted), weighted, [0, 1, 2, 0], TREE, 1e-12)


def test_an_ensemble_is_decoded_as_its_combination_under_every_drafter() -> None:
    """A model that is subtracted moves the choice; drafts do not."""
    other = TOY.related(2.0, seed=2)
    made = Ensemble([Member(TOY, [1]), Member(other, [5, 4])], weighted)
    options = GenerationOptions(max_new_tokens=30)

    def text(model: Any, make: Callable[[], Any]) -> list[int]:
        events = decode(model, [Request([0], make(), ExactMatch(), options, assistants=[TOY, other])])
        return [token for event in events if isinstance(event, StepEvent) for token in event.emitted]

    right, written = [0], []
    for _ in range(30):
        logits = [np.log(toy.probabilities(prefix + right)) for toy, prefix in ((TOY, [1]), (other, [5, 4]))]
        written.append(int(np.argmax(weighted(logits))))
        right.append(written[-1])
    assert text(made, Plain) == text(made, drafter) == written != text(TOY, Plain)
    only = Ensemble([Member(TOY), Member(TOY, [5, 4])], lambda rows: rows[0])
    assert text(only, drafter) == text(TOY, Plain)


def test_the_checks_of_ensembles_see_faults() -> None:
    class Shared(Ensemble):
        def open(self, taps: Taps | None = None) -> Any:
            session = super().open(taps)
            session.members = [session.members[0]] * 2
            return session

    with pytest.raises(AssertionError, match="not the combination"):
        made = Ensemble([Member(TOY), Member(TOY, [5, 4])], lambda rows: rows[0])
        ensemble.check(made, weighted, [0, 1, 2, 0], TREE)
    with pytest.raises((AssertionError, RuntimeError)):
        ensemble.check(Shared([Member(TOY), Member(TOY, [5, 4])], weighted), weighted, [0, 1, 2, 0], TREE)
    for members, message in (([], "at least one"), ([Member(TOY), Member(ToyModel.random())], "the same vocabulary")):
        with pytest.raises(UnspoolError, match=message):
            Ensemble(members, weighted)


# Channels.


def test_a_channel() -> None:
    """All 121 data of up to four symbols, themselves and after each of their substitutions, 6 a symbol."""
    symbols = sum(size * 3**size for size in range(5))
    assert channel.check(Repeat(), 4) == 121 + 6 * symbols
    assert channel.check(Repeat(1), 4) == 121, "it says that it corrects nothing"


@pytest.mark.parametrize(("edit", "count"), [("substitution", 6), ("deletion", 3), ("insertion", 12)])
def test_all_single_errors_are_made(edit: Any, count: int) -> None:
    found = list(channel.observations((0, 1, 2), edit, 3))
    assert len(found) == count and (0, 1, 2) not in found


def test_the_checks_of_channels_see_faults() -> None:
    class Claims(Repeat):
        def __init__(self, edit: Any) -> None:
            super().__init__(2 if edit == "substitution" else 3)
            self.corrects = frozenset({edit})

    class Unranked(Repeat):
        def decode(self, observation: Sequence[int]) -> list[Decoded]:
            return [*super().decode(observation), Decoded((0,), 9.0)]

    class Loses(Repeat):
        def encode(self, data: Sequence[int]) -> Word:
            return super().encode([min(symbol, 1) for symbol in data])

    for faulty, message in (
        (Claims("substitution"), "is taken for"),
        (Claims("deletion"), "nothing explains it"),
        (Unranked(), "not ranked"),
        (Loses(), "is taken for"),
    ):
        with pytest.raises(AssertionError, match=message):
            channel.check(faulty, 2)


# Compressors.


def test_a_compressor(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    compressor.check(Half(), directory(tmp_path / "in"), tmp_path / "out")


def test_the_checks_of_compressors_see_faults(tmp_path: Path) -> None:
    class InPlace(Half):
        def run(self, source: Path, output: Path, progress: Progress) -> Path:
            (source / "note").write_text("x")
            return super().run(source, output, progress)

    class Leaves(Half):
        def run(self, source: Path, output: Path, progress: Progress) -> Path:
            if not output.exists() and (source / "config.json").is_file():
                (output.parent / "temporary").mkdir(exist_ok=True)
            return super().run(source, output, progress)

    source = directory(tmp_path / "in")
    for number, (faulty, message) in enumerate(((Leaves(), "left something"), (InPlace(), "source was changed"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(AssertionError, match=message):
            compressor.check(faulty, source, folder)
