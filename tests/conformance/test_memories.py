"""Every memory that a registered drafter keeps: what it learned from other requests changes no text, options of one
call leave the next call alone, and a saved one is what it was or is refused.

A memory is in this suite by being made where its method is built; nothing here names a method but where its options
are its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.conformance import memory as conformance
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Context, Memory
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError
from unspool.methods.drafters._datastore import Datastore
from unspool.methods.drafters.auto.rates import AcceptanceRates
from unspool.methods.shaping import _built_in as shaping

TOY = ToyModel.random(vocab_size=6, order=2, seed=11)
PROMPTS = [[0, 1, 2, 0, 1, 2, 0], [5, 4], [2, 4, 2, 4, 2, 4, 2], [1, 1, 3]]
CURVE = CostCurve((1, 4, 64), (32,), ((1.0, 1.0, 4.0),))


def resources(toy: ToyModel = TOY) -> methods.Resources:
    return methods.Resources(toy, costs=lambda: PassCosts(CURVE), assistant=toy.related(0.7, seed=2))


def texts(
    around: methods.Resources,
    name: str,
    prompts: list[list[int]],
    acceptance: str,
    given: dict[str, Any] | None = None,
    first_seed: int = 7,
) -> list[list[int]]:
    """One batch; row ``i`` has a seed of its own."""
    requests = []
    for row, prompt in enumerate(prompts):
        temperature = 0.0 if acceptance == "greedy" else 0.9
        options = GenerationOptions(max_new_tokens=25, temperature=temperature, seed=first_seed + row)
        rule = methods.acceptance_rule(acceptance, options.greedy, around)
        made = methods.build(name, DRAFTER, around, given)
        requests.append(Request(prompt, made, rule, options, shaping.build(options)))
    emitted: list[list[int]] = [[] for _ in prompts]
    for event in decode(around.model, requests):
        if isinstance(event, StepEvent):
            emitted[event.row] += event.emitted
    return emitted


def filled(name: str) -> methods.Resources:
    """Resources whose memories have learned from four requests; a datastore, which learns nothing, is given."""
    around = resources()
    texts(around, name, PROMPTS, "same_noise")
    for key, memory in around.memories.items():
        if isinstance(memory, Datastore):
            around.memories[key] = Datastore.from_sequences([[0, 1, 2, 3, 4, 5] * 4, [1, 2, 0, 5, 3, 3, 5, 3]])
    return around


def draft(around: methods.Resources, name: str) -> TokenTree:
    context = Context([0, 1, 2, 0, 1, 2, 0], 3, seed=1, temperature=0.0)
    made = methods.build(name, DRAFTER, around)
    made.start(context)
    return made.propose(context, 64)


DRAFTERS = {name: row for name, row in methods.methods().items() if row.kind is DRAFTER}
LEARNING = [name for name in DRAFTERS if filled(name).memories]
RULES = [
    pytest.param(name, acceptance, id=f"{name}-{acceptance}")
    for name in LEARNING
    for acceptance in ("greedy", "same_noise", "lossless")
    # What is drawn from a memory depends on it. Without a draft model rasd draws nothing, see below.
    if acceptance != "lossless" or not DRAFTERS[name].draws
]


def test_the_methods_that_learn_are_known() -> None:
    assert {"auto", "aded", "rasd", "stand", "token_recycling"} <= set(LEARNING)


@pytest.mark.parametrize(("name", "acceptance"), RULES)
def test_other_requests_change_no_text(name: str, acceptance: str) -> None:
    """The second call, and the rows of a batch that share a memory, give what plain decoding gives."""
    plain = [
        texts(resources(), "plain", [prompt], "greedy" if acceptance == "greedy" else "same_noise", None, 7 + i)[0]
        for i, prompt in enumerate(PROMPTS)
    ]
    alone = [texts(resources(), name, [prompt], acceptance, None, 7 + i)[0] for i, prompt in enumerate(PROMPTS)]
    assert alone == plain
    around = resources()
    assert texts(around, name, PROMPTS, acceptance) == plain
    assert texts(around, name, PROMPTS, acceptance) == plain


def test_under_lossless_retrieval_is_plain_sampling_where_the_inner_drafter_draws_nothing() -> None:
    around = methods.Resources(TOY)
    plain = texts(around, "plain", PROMPTS, "same_noise")
    assert texts(around, "rasd", PROMPTS, "lossless") == plain
    assert texts(around, "rasd", PROMPTS, "lossless") == plain


@pytest.mark.parametrize("name", [name for name in DRAFTERS if not DRAFTERS[name].draws])
def test_the_registry_says_truly_who_draws_nothing(name: str) -> None:
    around = filled(name)
    for temperature in (0.0, 0.9):
        context = Context([0, 1, 2, 0, 1, 2, 0], 3, seed=1, temperature=temperature, uses_draft_probs=True)
        made = methods.build(name, DRAFTER, around)
        made.start(context)
        assert not made.propose(context, 64).distributions


@pytest.mark.parametrize("name", list(DRAFTERS))
def test_no_drafter_looks_at_the_noise_of_positions_where_draws_are_tested(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule chooses with it; what was drafted by it would not be independent."""
    from unspool.engine import assistant, noise
    from unspool.methods.drafters import stand

    def refuse(*arguments: object) -> None:
        raise AssertionError("the noise of a position")

    around = filled(name)
    for module, function in ((assistant, "gumbel"), (stand, "gumbel_of"), (noise, "exponential")):
        monkeypatch.setattr(module, function, refuse)
    context = Context([0, 1, 2, 0, 1, 2, 0], 3, seed=1, temperature=0.9, uses_draft_probs=True)
    made = methods.build(name, DRAFTER, around, {"overlap": False} if name == "pearl" else {})
    made.start(context)
    made.propose(context, 64)


# Options.

SHAPES: list[tuple[str, dict[str, Any], list[tuple[str, dict[str, Any]]]]] = [
    ("token_recycling", {"k": 4}, [("token_recycling", {}), ("auto", {}), ("rasd", {"drafter": "token_recycling"})]),
    ("stand", {"orders": [2, 1]}, [("stand", {}), ("rasd", {"drafter": "stand"}), ("stand", {"orders": (3,)})]),
    ("auto", {"forget": 0.5, "prior_weight": 1.0, "candidates": 4}, [("auto", {}), ("token_recycling", {"k": 2})]),
]


@pytest.mark.parametrize(("name", "options", "others"), SHAPES, ids=[name for name, _, _ in SHAPES])
def test_options_of_one_call_leave_the_others_alone(
    name: str, options: dict[str, Any], others: list[tuple[str, dict[str, Any]]]
) -> None:
    plain = texts(resources(), "plain", PROMPTS, "greedy")
    for calls in ([(name, options), *others], [*others, (name, options)]):
        around = resources()
        for method, given in calls:
            assert texts(around, method, PROMPTS, "greedy", given) == plain


def test_a_memory_is_kept_by_the_options_that_shape_it() -> None:
    around = resources()
    for given in ({}, {"nodes": 3}, {"k": 4}, {"k": 4, "nodes": 5}):
        methods.build("token_recycling", DRAFTER, around, given)
    assert {key: memory.k for key, memory in around.memories.items()} == {  # type: ignore[attr-defined]
        "token_recycling": 8,
        "token_recycling:k=4": 4,
    }
    methods.build("stand", DRAFTER, around, {"orders": [4, 3, 2]})
    methods.build("stand", DRAFTER, around, {"orders": [2]})
    assert {"stand", "stand:orders=(2,)"} <= set(around.memories)


def test_a_memory_of_the_users_own_is_used_or_refused() -> None:
    """Never left aside in silence."""
    from unspool.methods.drafters.token_recycling.matrix import RecyclingMatrix

    around = resources()
    own = around.memories["token_recycling"] = RecyclingMatrix(4)
    texts(around, "token_recycling", PROMPTS, "greedy", {"k": 4})
    assert own.vocab_size == 6 and set(around.memories) == {"token_recycling"}
    with pytest.raises(UnspoolError, match=r'memories\["token_recycling"\] was not made with k=8'):
        methods.build("auto", DRAFTER, around)
    around.memories["stand"] = own
    with pytest.raises(UnspoolError, match=r'memories\["stand"\] must be a NGramMemory, not a RecyclingMatrix'):
        methods.build("stand", DRAFTER, around)


def test_auto_reads_and_writes_its_memory_as_the_options_of_the_call_say(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float]] = []
    rate, update = AcceptanceRates.rate, AcceptanceRates.update

    def rated(self: AcceptanceRates, source: str, bucket: int, depth: int, weight: float) -> float:
        seen.append(("prior_weight", weight))
        return rate(self, source, bucket, depth, weight)

    def updated(self: AcceptanceRates, source: str, bucket: int, depth: int, hit: bool, forget: float) -> None:
        seen.append(("forget", forget))
        update(self, source, bucket, depth, hit, forget)

    monkeypatch.setattr(AcceptanceRates, "rate", rated)
    monkeypatch.setattr(AcceptanceRates, "update", updated)
    around = resources()
    texts(around, "auto", PROMPTS, "greedy")
    assert set(seen) == {("prior_weight", 8.0), ("forget", 0.98)}
    seen.clear()
    texts(around, "auto", PROMPTS, "greedy", {"forget": 0.5, "prior_weight": 1.0})
    assert set(seen) == {("prior_weight", 1.0), ("forget", 0.5)}


@pytest.mark.parametrize(
    "options",
    [
        {"candidates": 0},
        {"candidates": -3},
        {"forget": 7.0},
        {"forget": -0.1},
        {"forget": float("nan")},
        {"prior_weight": 0.0},
        {"prior_weight": -1},
        {"prior_weight": float("nan")},
        {"prior_weight": float("inf")},
    ],
)
def test_options_of_auto_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UnspoolError, match=next(iter(options))):
        methods.build("auto", DRAFTER, resources(), options)


# Files.


def each_memory(name: str, tmp_path: Path, around: methods.Resources | None = None) -> list[tuple[str, Memory, Path]]:
    """Key, filled memory and file of each memory of a method."""
    found = []
    for number, (key, memory) in enumerate((around or filled(name)).memories.items()):
        file = tmp_path / f"memory{number}"
        memory.save(file)
        found.append((key, memory, file))
    return found


@pytest.mark.parametrize("name", LEARNING)
def test_saved_and_loaded_drafts_the_same(name: str, tmp_path: Path) -> None:
    full, around = filled(name), resources()
    saved = each_memory(name, tmp_path, full)
    expected, nothing = draft(full, name), draft(resources(), name)
    for key, memory, file in saved:
        assert isinstance(memory, Memory)
        around.memories[key] = type(memory)()
        around.memories[key].load(file)
    found = draft(around, name)
    assert (found.tokens, found.parents, found.buckets) == (expected.tokens, expected.parents, expected.buckets)
    assert len(found) > 1 and found.tokens != nothing.tokens
    for memory in around.memories.values():
        memory.reset()
    assert draft(around, name).tokens == nothing.tokens


@pytest.mark.parametrize("name", LEARNING)
def test_files_of_memories(name: str, tmp_path: Path) -> None:
    for memory in filled(name).memories.values():
        conformance.check(memory, tmp_path)


def test_the_checks_see_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that believes any file, one that a damaged file changes, foreign errors, one that saves in place."""
    full = filled("auto").memories["auto"]
    with monkeypatch.context() as patch:
        patch.setattr(AcceptanceRates, "load", lambda self, path: None)
        with pytest.raises(AssertionError, match="a file that is missing is loaded"):
            conformance.damaged_files_are_refused(full, tmp_path)
    load = AcceptanceRates.load

    def forgets(self: AcceptanceRates, path: Path) -> None:
        self.reset()
        load(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(AcceptanceRates, "load", forgets)
        with pytest.raises(AssertionError, match="the memory was changed"):
            conformance.damaged_files_are_refused(full, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(AcceptanceRates, "load", lambda self, path: json.loads(path.read_text()))
        with pytest.raises((ValueError, FileNotFoundError)):
            conformance.damaged_files_are_refused(full, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(AcceptanceRates, "save", lambda self, path: path.write_text("[1, 2, 3, 4, 5, 6]"))
        with pytest.raises(OSError):
            conformance.a_failed_save_leaves_the_old_file(full, tmp_path)


def test_rows_say_what_they_remember() -> None:
    assert [name for name, row in DRAFTERS.items() if row.memory] == LEARNING


@pytest.mark.parametrize("name", LEARNING)
def test_memories_of_another_vocabulary_are_refused(name: str, tmp_path: Path) -> None:
    smaller = ToyModel.random(vocab_size=4, order=2, seed=3)
    for key, memory, file in each_memory(name, tmp_path):
        if isinstance(memory, AcceptanceRates):
            continue  # it holds no ids
        around = resources(smaller)
        around.memories[key] = type(memory)()
        around.memories[key].load(file)
        with pytest.raises(UnspoolError):
            methods.build(name, DRAFTER, around)


@pytest.mark.parametrize(
    "rows",
    [
        '[["suffix", 1, 1, NaN, 1.0]]',
        '[["suffix", 1, 1, 1.0, NaN]]',
        '[["suffix", 1, 1, 1.0, Infinity]]',
        '[["suffix", 1, 1, -5.0, 8.0]]',
        '[["suffix", 1, 1, -5, -8]]',
        '[["suffix", 1, 1, 3.0, 2.0]]',
        '[["suffix", 1, 7, 1.0, 2.0]]',
        '[["suffix", -1, 1, 1.0, 2.0]]',
        '[["suffix", true, 1, 1.0, 2.0]]',
        "[[1, 1, 1, 1.0, 2.0]]",
        '[["suffix", 1, 1, 1.0]]',
        '[["suffix", 1, 1, 1.0, 2.0], 3]',
        "1",
    ],
)
def test_rates_that_nobody_saw_are_refused(rows: str, tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    file.write_text(rows)
    rates = AcceptanceRates()
    rates.update("suffix", 1, 1, hit=True)
    before = rates.rate("suffix", 1, 1)
    with pytest.raises(UnspoolError, match=r"rates\.json is not a saved table of acceptance rates"):
        rates.load(file)
    assert rates.rate("suffix", 1, 1) == before
