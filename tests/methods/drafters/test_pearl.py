"""PEARL: its schedule is that of the paper's state machine, whoever runs first, and its thread never outlives it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from unspool import methods
from unspool.backends.toy import ToyModel, ToySession
from unspool.engine import noise
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Context, Scores
from unspool.engine.options import GenerationOptions
from unspool.engine.taps import Taps
from unspool.engine.trace import StepEvent
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError
from unspool.methods.drafters.pearl import Pearl, PearlOptions, after
from unspool.methods.shaping import _built_in as shaping

TARGET = ToyModel.random(vocab_size=6, order=2, seed=11)
DRAFT = TARGET.related(0.9, seed=4)
PROMPT = [0, 1, 2]
RULES = {"greedy": (0.0, None), "same_noise": (0.9, None), "lossless": (0.9, "lossless")}


class Recording(ToyModel):
    """A toy model that tells what its sessions score, and does something before each pass whose logits are wanted."""

    def __init__(self, model: ToyModel, before: Callable[[], object] = lambda: None) -> None:
        super().__init__(model.table, max_length=model.max_length)
        self.passes: list[tuple[int, tuple[int, ...]]] = []  # (tokens in the cache, tokens scored)
        self.readings = 0  # passes of which no logits were asked for
        self.before = before
        self.levels: Callable[[int], int] | None = None

    def open(self, taps: Taps | None = None) -> ToySession:
        return RecordingSession(self)


class RecordingSession(ToySession):
    model: Recording

    @property
    def max_depth(self) -> int:
        return super().max_depth if self.model.levels is None else self.model.levels(self.length)

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        if rows is not None and not len(rows):
            self.model.readings += 1
        else:
            self.model.before()
            self.model.passes.append((self.length, tree.tokens))
        return super().score(tree, rows)


@dataclass
class Run:
    """What a run did: text, mode of each pass, (tokens in the cache, tokens scored) of each pass of either model."""

    text: list[int] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    target: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    draft: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)


def replay(gamma: int, temperature: float, acceptance: str | None, tokens: int, seed: int = 0) -> Run:
    """The state machine of the paper in one thread: prefix, mode, and one cache a model, which is a list of tokens.

    In POST the last gamma tokens of the prefix are a block whose first token is final. A drafted token is
    accepted where the target's own choice equals it, under the lossless rule too: its drafts are chosen, not drawn.
    """
    run, prefix, mode = Run(), list(PROMPT), "pre"
    target, draft = prefix[:-1], prefix[:-1]
    shaped = temperature or 1.0

    def distribution(model: ToyModel, text: list[int]) -> np.ndarray:
        p = model.probabilities(text) ** (1 / shaped)
        return p / p.sum()

    def choice(model: ToyModel, text: list[int]) -> int:
        p = distribution(model, text)
        if temperature == 0 or (acceptance == "lossless" and model is DRAFT):
            return int(p.argmax())
        return noise.draw(np.log(p), seed, len(text), len(p), np.arange(len(p)))

    while True:
        n = len(prefix)
        final = n if mode == "pre" else n - gamma + 1
        if final - len(PROMPT) >= tokens:
            run.text = prefix[len(PROMPT) : len(PROMPT) + tokens]
            return run
        assert len(target) == (n - 1 if mode == "pre" else n - gamma) and len(draft) <= n - 1
        block: list[int] = []
        for _ in range(gamma):
            newest = [*prefix, *block][-1]
            # The prompt is read along with its last token; after that nothing is missing.
            run.draft.append((len(draft), (newest,)) if run.draft else (0, tuple(PROMPT)))
            draft.append(newest)
            assert draft == [*prefix, *block]
            block.append(choice(DRAFT, draft))
        run.modes.append(mode)
        run.target.append((len(target), tuple(prefix[len(target) :])))
        target = list(prefix)
        for i, token in enumerate([*prefix[final:], block[0]]):  # what is tested, in order
            before = [*prefix, *block][: final + i]
            corrected = choice(TARGET, before)
            if corrected != token:
                prefix = [*before, corrected]
                target, draft, mode = before[:], before[:], "pre"
                break
        else:
            prefix, mode = [*prefix, *block], "post"
            target = prefix[:n]


def engine(
    drafter: Pearl, target: ToyModel, temperature: float, acceptance: str | None, tokens: int, seed: int = 0
) -> tuple[list[int], list[StepEvent]]:
    options = GenerationOptions(max_new_tokens=tokens, temperature=temperature, seed=seed)
    rule = methods.acceptance_rule(acceptance, options.greedy, methods.Resources(target))
    try:
        events = [
            e
            for e in decode(target, [Request(PROMPT, drafter, rule, options, shaping.build(options))])
            if isinstance(e, StepEvent)
        ]
    finally:
        drafter.close()
    return [token for event in events for token in event.emitted], events


class Modes(Pearl):
    """Keeps the mode of each pass."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        self.modes = [*getattr(self, "modes", []), self.mode]
        return super().propose(context, budget)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("gamma", [2, 3, 5])
@pytest.mark.parametrize("rule", RULES)
def test_tokens_modes_and_caches_are_those_of_the_papers_state_machine(rule: str, gamma: int, overlap: bool) -> None:
    """The key test: the same tokens, modes and passes of both models over the same caches, in one thread or two."""
    temperature, acceptance = RULES[rule]
    for seed in range(3):
        expected = replay(gamma, temperature, acceptance, 60, seed)
        target, draft = Recording(TARGET), Recording(DRAFT)
        drafter = Modes(PearlOptions(gamma, overlap), draft, 6)
        text, events = engine(drafter, target, temperature, acceptance, 60, seed)
        # The limit cuts the trees near it, and the end of the text the last block.
        whole = sum(event.position + gamma <= len(PROMPT) + 60 for event in events)
        assert whole > 12
        assert text[: 60 - gamma] == expected.text[: 60 - gamma]
        assert drafter.modes[:whole] == expected.modes[:whole]
        assert {"pre", "post"} <= set(drafter.modes)
        assert target.passes[:whole] == expected.target[:whole]
        assert draft.passes[: gamma * whole] == expected.draft[: gamma * whole]
        assert draft.readings == 0  # nothing is read in passes of its own


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_draft_that_is_always_right_is_never_interrupted(temperature: float) -> None:
    drafter = Pearl(PearlOptions(4), ToyModel(TARGET.table), 6)
    _, events = engine(drafter, TARGET, temperature, None, 41)
    assert [len(event.emitted) for event in events] == [1] + [4] * 10
    assert [len(event.tokens) for event in events] == [1] + [4] * 10


def test_a_draft_that_is_always_wrong_leaves_plain_decoding() -> None:
    worst = TARGET.table.min(axis=-1, keepdims=True) == TARGET.table
    drafter = Modes(PearlOptions(3), ToyModel(worst / worst.sum(axis=-1, keepdims=True)), 6)
    _, events = engine(drafter, TARGET, 0.0, None, 20)
    assert [len(event.tokens) for event in events] == [1] * 20
    assert set(drafter.modes) == {"pre"}


def test_what_stays_pending() -> None:
    assert after([1, 2, 3, 4, 5], [1]) == [2, 3, 4, 5]  # the first of the block
    assert after([2, 3, 4, 5, 6, 7], [2, 3, 4, 5]) == [6, 7]  # all pending ones and the first of the next block
    assert after([2, 3, 4, 5, 6, 7], [2, 3]) == [4, 5, 6, 7]  # as many as fitted into the tree
    assert after([2, 3, 4], [2, 9]) == []
    assert after([2, 3], [2, 3, 4]) == []
    assert after([], [2]) == []


def test_a_tree_that_is_cut_loses_no_draft() -> None:
    """Where a tree may not be deep, what is pending behind it stays so."""
    target = Recording(TARGET)
    target.levels = lambda length: 2 if length % 3 else 64
    drafter = Pearl(PearlOptions(4), ToyModel(TARGET.table), 6)
    text, events = engine(drafter, target, 0.0, None, 40)
    assert text == engine(Pearl(PearlOptions(4), DRAFT, 6), TARGET, 0.0, None, 40)[0]
    assert all(len(event.emitted) == len(event.tokens) for event in events)  # the draft is right, always
    context = Context(PROMPT, 3, 0, 0.0)
    drafter._pending = [1, 2, 3, 4, 5]
    assert drafter.propose(context, 3).tokens == (2, 1, 2)
    drafter.close()


def test_the_models_work_at_the_same_time() -> None:
    """The draft model waits until the target's pass has begun, so this ends only if the target does not wait for it."""
    begun = threading.Semaphore(0)

    def wait() -> None:
        if not begun.acquire(timeout=20):
            raise TimeoutError

    target, draft = Recording(TARGET, before=begun.release), Recording(DRAFT, before=wait)
    assert len(engine(Pearl(PearlOptions(1), draft, 6), target, 0.0, None, 10)[0]) == 10


def test_an_error_of_the_draft_model_is_that_of_the_run() -> None:
    def fail() -> None:
        raise FloatingPointError("broken draft")

    with pytest.raises(FloatingPointError, match="broken draft"):
        engine(Pearl(PearlOptions(3), Recording(DRAFT, before=fail), 6), TARGET, 0.0, None, 10)


def test_closing_cuts_the_block_short_and_waits() -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        leave.wait(20)

    draft = Recording(DRAFT, before=hold)
    drafter = Pearl(PearlOptions(50), draft, 6)
    drafter.propose(Context(PROMPT, 3, 0, 0.0), 8)
    assert entered.wait(20)
    threading.Timer(0.05, leave.set).start()
    drafter.close()
    passes = len(draft.passes)
    assert leave.is_set() and passes <= 2, "it waits for the pass that runs, and begins no other"
    drafter.close()  # again: nothing to wait for
    assert len(draft.passes) == passes


def test_a_new_request_begins_anew() -> None:
    """Nothing stays pending from the last one, whose last pass was not observed."""
    drafter = Modes(PearlOptions(4), ToyModel(TARGET.table), 6)
    first = engine(drafter, TARGET, 0.0, None, 20)[0]
    assert drafter.mode == "post"
    drafter.modes = []
    text, events = engine(drafter, TARGET, 0.0, None, 20)
    assert text == first and drafter.modes[0] == "pre" and len(events[0].tokens) == 1


def test_rows_of_a_batch_share_one_thread() -> None:
    """A model runs one pass at a time."""
    busy, most = [0], [0]

    class Busy(Recording):
        def open(self, taps: Taps | None = None) -> ToySession:
            return BusySession(self)

    class BusySession(RecordingSession):
        def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
            threading.Event().wait(0.002)  # lets another thread in, if there is one
            scores = super().score(tree, rows)
            busy[0] -= 1
            return scores

    draft: Any = Busy(DRAFT)
    options = GenerationOptions(max_new_tokens=8)
    rule = methods.acceptance_rule(None, True, methods.Resources(TARGET))
    drafters = [Pearl(PearlOptions(2), draft, 6) for _ in range(3)]
    for _ in decode(TARGET, [Request(PROMPT, drafter, rule, options, shaping.build(options)) for drafter in drafters]):
        pass
    for drafter in drafters:
        drafter.close()
    assert most == [1]


def test_a_full_context_of_the_draft_model_ends_drafting() -> None:
    drafter = Pearl(PearlOptions(3), ToyModel(TARGET.table, max_length=9), 6)
    text, events = engine(drafter, TARGET, 0.0, None, 20)
    assert text == engine(Pearl(PearlOptions(3), DRAFT, 6), TARGET, 0.0, None, 20)[0]
    assert any(len(event.tokens) > 1 for event in events)
    assert all(len(event.tokens) == 1 for event in events if event.position >= 9)


def test_options() -> None:
    with pytest.raises(UnspoolError, match="num_assistant_tokens"):
        PearlOptions(0)
