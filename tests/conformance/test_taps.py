"""Taps of every backend, and whether their checks see faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import unspool
from tests.backends.test_transformers import CONFIGS, SIZES, build
from unspool import methods
from unspool.backends.openvino.convert import convert
from unspool.backends.openvino.model import OpenVINOModel
from unspool.backends.torch.model import TransformersModel
from unspool.backends.toy import ToyModel, ToySession
from unspool.conformance import taps as conformance
from unspool.engine.contracts import Ability, Scores
from unspool.engine.method import SEARCH, Method, Needs, NoOptions, check
from unspool.engine.taps import OUTPUT, Taps, joined
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError, UnsupportedError

TEXT = [3, 17, 42, 9, 60, 33, 5, 21, 8, 50, 13, 28]
TREE = TokenTree((40, 5, 6, 7, 5, 9, 10, 11, 12), (-1, 0, 0, 2, 1, 3, 5, 3, 6))
TOY = ToyModel.random(vocab_size=6, order=2, seed=11)
TOY_TEXT, TOY_TREE = [0, 1, 2, 0], TokenTree((3, 1, 2, 5, 1), (-1, 0, 0, 2, 1))


def expected(model: Any) -> conformance.Expected:
    """What transformers says; the last of its states is what the output layer reads in these models."""

    def states(text: Sequence[int], layer: int) -> np.ndarray:
        with torch.no_grad():
            output = model(input_ids=torch.tensor([list(text)]), use_cache=False, output_hidden_states=True)
        return np.asarray(output.hidden_states[layer][0, -1].float())

    return states


def test_toy() -> None:
    conformance.check(TOY, Taps((0, OUTPUT)), TOY_TEXT, TOY_TREE)


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers(name: str) -> None:
    torch.manual_seed(0)
    model = TransformersModel.from_pretrained_model(build(CONFIGS[name]()))
    layers = Taps((0, 2, SIZES["num_hidden_layers"] - 1, OUTPUT))
    conformance.check(model, layers, TEXT, TREE, 2e-4, expected(model.model))


@pytest.mark.parametrize("name", ["llama", "gemma3", "opt"])
def test_openvino(name: str, tmp_path: Path) -> None:
    def made() -> Any:
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation="sdpa").float().eval()

    convert(made(), tmp_path, "fp32", lambda message: None)
    model = OpenVINOModel(tmp_path, threads=1)
    layers = Taps((0, 2, SIZES["num_hidden_layers"] - 1, OUTPUT))
    conformance.check(model, layers, TEXT, TREE, 2e-4, expected(made()))
    model.specialise_widths()
    conformance.check(model, layers, TEXT, TREE, 2e-4)
    with pytest.raises(UnsupportedError, match="attention maps, which the openvino backend does not offer"):
        model.open(Taps((), attention=(0,)))


def test_attention_is_that_of_the_path(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TransformersModel.from_pretrained_model(build(CONFIGS["llama"](), attention="eager"))
    assert Ability.ATTENTION_MAPS in model.abilities
    short = conformance.opened(model, None, TEXT[:3])
    session = conformance.opened(model, Taps((), attention=(0, 3)), TEXT)
    _, scores = model.score_many([short, session], [TokenTree.chain([4]), TREE], [None, None])
    assert scores.attention is not None
    for node in range(len(TREE)):
        path = TREE.path(node)
        whole = [*TEXT, *(TREE.tokens[i] for i in path)]
        with torch.no_grad():
            output = model.model(input_ids=torch.tensor([whole]), use_cache=False, output_attentions=True)
        slots = [*range(len(TEXT)), *(len(TEXT) + i for i in path)]
        for layer in (0, 3):
            found = scores.attention[layer][node]
            np.testing.assert_allclose(found[:, slots], output.attentions[layer][0, :, -1], atol=1e-5)
            np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


@pytest.mark.model
def test_a_real_model() -> None:
    """int8 weights move the states by some per cent; another layer's or position's are off by all of their length."""
    reference = unspool.load("smollm2-135m", backend="transformers")
    text, tree = reference.encode("Why is the sky blue?"), TokenTree((504, 30, 28, 253, 30, 1195), (-1, 0, 0, 1, 2, 3))
    taps, right = Taps((0, 1, 15, 29, OUTPUT)), expected(reference.language_model.model)  # type: ignore[attr-defined]
    conformance.logits_stay(reference.language_model, taps, text, tree)
    conformance.states_are(reference.language_model, taps, text, tree, 1e-5, right)
    fast = unspool.load("smollm2-135m", threads=1).language_model
    conformance.logits_stay(fast, taps, text, tree)
    conformance.states_belong_to_paths(fast, taps, text, tree, 0.0)
    conformance.states_are(fast, taps, text, tree, 0.15, right)


class Forgetful(ToyModel):
    """Gives the states of the nodes before."""

    def open(self, taps: Taps | None = None) -> ToySession:
        class Session(ToySession):
            def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
                scores = super().score(tree, rows)
                hidden = scores.hidden and {layer: np.roll(part, 1, axis=0) for layer, part in scores.hidden.items()}
                return replace(scores, hidden=hidden)

        return Session(self, taps)


class Changing(ToyModel):
    """Gives other logits where it is tapped."""

    def open(self, taps: Taps | None = None) -> ToySession:
        class Session(ToySession):
            def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
                scores = super().score(tree, rows)
                return replace(scores, logits=scores.logits + 1e-12) if taps else scores

        return Session(self, taps)


def test_the_checks_see_faults() -> None:
    with pytest.raises(AssertionError, match="taps change logits"):
        conformance.logits_stay(Changing(TOY.table), Taps(), TOY_TEXT, TOY_TREE)
    with pytest.raises(AssertionError, match="depend on the tree"):
        conformance.states_belong_to_paths(Forgetful(TOY.table), Taps(), TOY_TEXT, TOY_TREE, 0.0)
    with pytest.raises(AssertionError, match="off by"):
        conformance.states_are(TOY, Taps((0,)), TOY_TEXT, TOY_TREE, 0.0, lambda text, layer: np.zeros(6))


def test_what_cannot_be_tapped_is_refused() -> None:
    for wrong in ({"layers": ()}, {"layers": (-2,)}, {"attention": (-1,)}, {"positions": "all"}):
        with pytest.raises(UnspoolError):
            Taps(**wrong)  # type: ignore[arg-type]
    assert joined([None, Taps((0,)), Taps((2, 0), attention=(1,))]) == Taps((0, 2), attention=(1,))
    assert joined([None]) is None
    with pytest.raises(UnspoolError, match="different positions"):
        joined([Taps((0,)), Taps((0,), positions="all")])


def test_taps_of_a_row_are_checked_before_work() -> None:
    row = Method(SEARCH, "lossy", "", "", NoOptions, lambda resources, options: None, name="mine")  # type: ignore
    for needs, message in (
        (Needs(taps=Taps((1,))), "mine reads layer 1, but the model has layers 0 to 0"),
        (Needs(taps=Taps((), attention=(0,))), "mine needs attention maps, which the toy backend does not offer"),
    ):
        with pytest.raises(UnsupportedError, match=message):
            check(replace(row, needs=needs), methods.Resources(TOY))
    check(replace(row, needs=Needs(taps=Taps((0,)))), methods.Resources(TOY))
