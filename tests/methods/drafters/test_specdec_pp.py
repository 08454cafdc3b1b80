"""SpecDec++: where a draft ends, what its head reads, and that a draft that does not end early is the fixed one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trained import acceptance_head, head_of
from unspool import methods
from unspool.backends.toy import ToyModel, ToySession
from unspool.bench.contestants import contestants
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Ability, Context, Drafter, Scores
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.statistics import summarise
from unspool.engine.taps import OUTPUT, Taps
from unspool.engine.trace import StepEvent
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError, UnsupportedError
from unspool.methods.drafters.draft_model import DraftModel, DraftModelOptions
from unspool.methods.drafters.specdec_pp import SpecDecPP, SpecDecPPOptions
from unspool.methods.shaping import _built_in as shaping
from unspool.training.artifact import Artifact, file_of

TARGET = ToyModel.random(vocab_size=6, order=2, seed=11)
PROMPT = [0, 1, 2]
RULES = {"greedy": (0.0, None), "same_noise": (0.9, None), "lossless": (0.9, "lossless")}
ACCEPT = np.array([3.0, 0.5, 1.0, -1.0, 2.0, 0.0], dtype=np.float32)  # the head's logit for each token


class Shown(ToyModel):
    """A toy model whose hidden state is the one-hot vector of the token that was fed."""

    abilities = frozenset({Ability.HIDDEN_STATES})

    def open(self, taps: Taps | None = None) -> ToySession:
        return ShownSession(self) if taps else ToySession(self)


class ShownSession(ToySession):
    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        scores = super().score(tree, rows)
        return replace(
            scores, hidden={OUTPUT: np.eye(6, dtype=np.float32)[[tree.tokens[node] for node in scores.rows]]}
        )


class Blind(ToyModel):
    """A toy model that shows nothing of its inside."""

    abilities = frozenset[Ability]()


DRAFT = Shown(TARGET.related(0.9, seed=4).table)


def head(hidden_size: int = 6, belongs_to: tuple[str, ...] = ()) -> Artifact:
    weight = np.zeros((2, hidden_size), dtype=np.float32)
    weight[1, :6] = ACCEPT[:hidden_size]
    return acceptance_head({"output.weight": weight, "output.bias": np.zeros(2, dtype=np.float32)}, belongs_to)


def built(options: SpecDecPPOptions, draft: ToyModel = DRAFT, keys: Sequence[str] = ()) -> SpecDecPP:
    resources = methods.Resources(TARGET, assistant=draft, keys=lambda: keys)
    made = methods.build(options, DRAFTER, resources)
    assert isinstance(made, SpecDecPP)
    return made


@pytest.fixture
def saved(tmp_path: Path) -> str:
    head().save(file_of(tmp_path, "specdec_pp"))
    return str(tmp_path)


def steps(drafter: Drafter, rule_name: str, seed: int = 3) -> list[StepEvent]:
    temperature, acceptance = RULES[rule_name]
    options = GenerationOptions(max_new_tokens=50, temperature=temperature, seed=seed)
    rule = methods.acceptance_rule(acceptance, options.greedy, methods.Resources(TARGET))
    return [
        e
        for e in decode(TARGET, [Request(PROMPT, drafter, rule, options, shaping.build(options))])
        if isinstance(e, StepEvent)
    ]


def shape(events: list[StepEvent]) -> list[tuple[Any, ...]]:
    return [(e.tokens, e.accepted, e.emitted) for e in events]


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_without_an_early_end_it_is_the_draft_model_of_fixed_length(rule: str, trained: bool, saved: str) -> None:
    """Threshold 1 with at most K tokens, and at least and at most K: the same trees, drawn with the same noise."""
    fixed = shape(steps(DraftModel(DraftModelOptions(4), DRAFT, 6), rule))
    for options in (
        SpecDecPPOptions(stop_threshold=1.0, num_assistant_tokens=4),
        SpecDecPPOptions(stop_threshold=0.0, min_assistant_tokens=4, num_assistant_tokens=4),
    ):
        own = replace(options, head=saved if trained else None)
        assert shape(steps(built(own), rule)) == fixed


def sigmoid(x: float) -> float:
    return 1 / (1 + float(np.exp(-x)))


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_the_head_judges_the_token_that_was_fed(temperature: float, saved: str) -> None:
    """The factor of a candidate comes with the pass after the one that drew it; the root and the newest have none."""
    drafter = built(SpecDecPPOptions(saved, 1.0, 2, 8))
    tree = drafter.propose(Context(PROMPT, 3, 5, temperature), 64)
    assert len(tree) == 9
    factors = [sigmoid(ACCEPT[token]) for token in tree.tokens[1:-1]]
    np.testing.assert_allclose(drafter.estimates, np.cumprod([1.0, *factors]), rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("uses_draft_probs", [True, False])
def test_the_stand_in_multiplies_the_drafts_own_probabilities(temperature: float, uses_draft_probs: bool) -> None:
    drafter = built(SpecDecPPOptions(stop_threshold=1.0, num_assistant_tokens=6), TARGET)
    tree = drafter.propose(Context(PROMPT, 3, 5, temperature, uses_draft_probs), 64)
    expected, product = [], 1.0
    for node in range(1, 7):
        p = TARGET.probabilities([*PROMPT, *tree.tokens[1:node]]) ** (1 / (temperature or 1))
        product *= p[tree.tokens[node]] / p.sum()
        expected.append(product)
    np.testing.assert_allclose(drafter.estimates, expected, rtol=1e-9)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.8, 0.95, 1.0])
def test_a_draft_ends_at_the_first_estimate_beyond_the_threshold(threshold: float, trained: bool, saved: str) -> None:
    whole = built(SpecDecPPOptions(saved if trained else None, 1.0, 1, 12))
    for minimum in (1, 2, 3):
        options = SpecDecPPOptions(saved if trained else None, threshold, minimum, 12)
        drafter = built(options)
        for seed in range(5):
            context = Context(PROMPT, 3, seed, 0.9)
            full, tree = whole.propose(context, 64), drafter.propose(context, 64)
            beyond = [i for i, a in enumerate(whole.estimates, 1) if i >= minimum and 1 - a > threshold]
            assert tree.tokens == full.tokens[: (beyond or [12])[0] + 1]
            assert drafter.estimates == whole.estimates[: len(tree) - 1]
            assert all(0 <= b <= a <= 1 for a, b in zip([1.0, *whole.estimates], whole.estimates, strict=False))


def test_lengths_vary_and_the_text_does_not(saved: str) -> None:
    text = [
        token for event in steps(DraftModel(DraftModelOptions(3), DRAFT, 6), "same_noise") for token in event.emitted
    ]
    for options in (SpecDecPPOptions(None, 0.95), SpecDecPPOptions(saved, 0.95)):
        made = steps(built(options), "same_noise")
        lengths = {len(event.tokens) for event in made if event.position + 20 < len(PROMPT) + 50}
        assert [token for event in made for token in event.emitted] == text
        assert len(lengths) > 1


def test_what_the_draft_model_must_offer_depends_on_the_head(saved: str) -> None:
    built(SpecDecPPOptions(), Blind(TARGET.table))
    with pytest.raises(UnsupportedError, match="needs hidden states, which the toy backend does not offer"):
        built(SpecDecPPOptions(saved), Blind(TARGET.table))


def test_a_head_of_other_models_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.artifact"
    head(belongs_to=("a", "b")).save(path)
    options = SpecDecPPOptions(str(path))
    assert built(options, keys=("a openvino int8", "b openvino int8")).name == "specdec_pp"
    for keys in (("b openvino int8", "a openvino int8"), ("a openvino int8",), ("a", "bb")):
        with pytest.raises(UnspoolError, match="trained for the target and the draft, not for these"):
            built(options, keys=keys)
    head(7).save(path)
    with pytest.raises(UnspoolError, match="hidden size 7, but the draft model has 6"):
        built(SpecDecPPOptions(str(path))).propose(Context(PROMPT, 3, 0, 0.0), 8)


def test_heads_of_other_shapes_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        "blocks.0.weight": rng.normal(size=(6, 6)).astype(np.float32),
        "blocks.0.bias": rng.normal(size=6).astype(np.float32),
        "output.weight": rng.normal(size=(2, 6)).astype(np.float32),
        "output.bias": rng.normal(size=2).astype(np.float32),
    }
    assert head_of(tensors).probabilities(rng.normal(size=(5, 6)).astype(np.float32)).shape == (5,)
    for broken in ({**tensors, "blocks.0.bias": tensors["output.bias"]}, {}):
        with pytest.raises(UnspoolError, match="of the right shape"):
            head_of(broken)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop_threshold": 1.1}, "stop_threshold"),
        ({"min_assistant_tokens": 0}, "min_assistant_tokens"),
        ({"num_assistant_tokens": 1}, "min_assistant_tokens"),
    ],
)
def test_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnspoolError, match=message):
        SpecDecPPOptions(**options)


def test_results_say_that_the_stand_in_is_no_head(saved: str) -> None:
    """Traces and what is counted by source by the drafter; tables of methods by the registry's row."""
    for head, name in ((None, "specdec_pp (no head)"), (saved, "specdec_pp")):
        events = steps(built(SpecDecPPOptions(head)), "greedy")
        assert set(summarise(events).by_source) == {"model", name}
    chosen = [methods.choose(row.name, DRAFTER) for row in methods.of_kind(DRAFTER)]
    assert {one.label for one in chosen if one.label != one.spec} == {"specdec_pp (no head)", "aded (no corpus)"}
    names = [one.name for one in contestants(["specdec_pp", "specdec_pp@fp32", "suffix"], [], "int8", "assistant")]
    assert names == ["plain", "specdec_pp (no head)", "specdec_pp (no head)@fp32", "suffix"]
