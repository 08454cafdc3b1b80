"""The draft model: its session in step with the text, and what drafts are drawn with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from unspool import methods
from unspool.backends.toy import ToyModel, ToySession
from unspool.engine.assistant import Assistant, Draws
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Context, Scores
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.taps import Taps
from unspool.engine.trace import StepEvent
from unspool.engine.tree import POINT_MASS, TokenTree
from unspool.errors import UnspoolError, UnsupportedError
from unspool.methods.acceptance.lossless import Lossless
from unspool.methods.drafters.draft_model import DraftModel, DraftModelOptions
from unspool.methods.shaping import _built_in as shaping

TARGET = ToyModel.random(vocab_size=6, order=2, seed=11)


def steps(drafter: DraftModel, options: GenerationOptions, lossless: bool = False) -> list[StepEvent]:
    rule = Lossless() if lossless else methods.acceptance_rule(None, options.greedy, methods.Resources(TARGET))
    events = decode(TARGET, [Request([0, 1, 2], drafter, rule, options, shaping.build(options))])
    return [event for event in events if isinstance(event, StepEvent)]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_the_target_itself_drafts_what_plain_decoding_takes(temperature: float) -> None:
    """Greedy and with the position's own noise; a cache that is out of step would draft something else."""
    drafter = DraftModel(DraftModelOptions(4), TARGET, TARGET.vocab_size)
    made = steps(drafter, GenerationOptions(max_new_tokens=40, temperature=temperature, seed=3))
    assert [len(step.emitted) for step in made] == [5] * 8


def test_another_model_is_rewound_where_it_was_wrong() -> None:
    """Each draft is what the draft model itself takes after the committed text, whatever was rejected before."""
    other = TARGET.related(1.5, seed=4)
    drafter = DraftModel(DraftModelOptions(3), other, TARGET.vocab_size)
    text = [0, 1, 2]
    made = steps(drafter, GenerationOptions(max_new_tokens=60))
    assert any(len(step.emitted) == 1 for step in made) and any(len(step.emitted) > 1 for step in made)
    for step in made:
        for node in range(1, len(step.tokens)):
            so_far = [*text, *step.tokens[1:node]]
            assert step.tokens[node] == int(np.argmax(other.probabilities(so_far)))
        text += step.emitted


def test_drafts_say_what_they_were_drawn_from_where_the_rule_asks() -> None:
    other = TARGET.related(0.5, seed=4)
    drafter = DraftModel(DraftModelOptions(2), other, TARGET.vocab_size)
    for uses_draft_probs in (True, False):
        tree = drafter.propose(Context([0, 1, 2], 3, seed=5, temperature=0.7, uses_draft_probs=uses_draft_probs), 8)
        if not uses_draft_probs:
            assert set(tree.drafts) == {POINT_MASS}
            continue
        for node in (1, 2):
            p = other.probabilities([0, 1, 2, *tree.tokens[1:node]]) ** (1 / 0.7)
            np.testing.assert_allclose(tree.distributions[tree.drafts[node]].q, p / p.sum(), atol=1e-12)


def test_no_noise_is_used_twice() -> None:
    """Not in two rounds, not at two nodes of one depth: reused noise keeps each token's distribution and no joint."""
    rounds = [Draws(Context([0] * n, 1, 7, 1.0, uses_draft_probs=True), 50) for n in (3, 4)]
    noise = [np.asarray(draws.noise(depth)) for draws in rounds for depth in (0, 0, 1)]
    assert len({row.tobytes() for row in noise}) == len(noise)


def test_logits_of_another_width_are_fitted() -> None:
    for vocab_size in (4, 8):
        assistant = Assistant(TARGET, vocab_size)
        assistant.follow([0, 1])
        logits = assistant.score(TokenTree.chain([1]))
        assert logits.shape == (1, vocab_size)
        assert np.isneginf(logits[0, TARGET.vocab_size :]).all()
        np.testing.assert_allclose(np.exp(logits[0, :4]), TARGET.probabilities([0, 1])[:4])


def test_what_was_not_read_is_read_with_the_next_token() -> None:
    """A draft that is accepted whole leaves its last token unread: no pass of its own for it, nor for the prompt."""
    passes: list[int] = []

    class Counting(ToySession):
        def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
            passes.append(len(tree))
            return super().score(tree, rows)

    class Counted(ToyModel):
        def open(self, taps: Taps | None = None) -> ToySession:
            return Counting(self)

    drafter = DraftModel(DraftModelOptions(3), Counted(TARGET.table), TARGET.vocab_size)
    made = steps(drafter, GenerationOptions(max_new_tokens=16))
    assert [len(step.emitted) for step in made] == [4] * 4
    assert passes == [3, 1, 1] + [2, 1, 1] * 3


def test_no_pass_is_longer_than_the_session_has_room_for() -> None:
    """Sections of five positions: what waits is cut at their ends, and text and drafts are the same."""

    class Sectioned(ToySession):
        @property
        def max_depth(self) -> int:
            return 5 - self.length % 5

        def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
            assert len(tree) <= self.max_depth
            return super().score(tree, rows)

    class Small(ToyModel):
        def open(self, taps: Taps | None = None) -> ToySession:
            return Sectioned(self)

    options = GenerationOptions(max_new_tokens=40)
    cut, free = (
        steps(DraftModel(DraftModelOptions(3), model, TARGET.vocab_size), options)
        for model in (Small(TARGET.table), ToyModel(TARGET.table))
    )
    assert [step.emitted for step in cut] == [step.emitted for step in free]


def test_a_full_context_of_the_draft_model_ends_drafting() -> None:
    short = ToyModel(TARGET.table, max_length=8)
    drafter = DraftModel(DraftModelOptions(4), short, TARGET.vocab_size)
    made = steps(drafter, GenerationOptions(max_new_tokens=20))
    assert len(made[0].tokens) == 5
    assert all(len(step.tokens) == 1 for step in made if step.position >= 8)


def test_without_a_draft_model_it_says_what_to_do() -> None:
    with pytest.raises(UnsupportedError, match="--assistant-model"):
        methods.build("draft_model", DRAFTER, methods.Resources(TARGET))
    with pytest.raises(UnspoolError, match="num_assistant_tokens"):
        DraftModelOptions(0)
