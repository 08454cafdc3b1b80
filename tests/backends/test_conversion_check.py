"""A conversion computes what the model computes, or is refused: logits behind the output layer, windows, positions."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    DiffLlamaConfig,
    FalconConfig,
    GPTNeoConfig,
    GraniteConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    StableLmConfig,
)

from unspool.backends.openvino.conversion_check import BOUND, Compared, spread_ids
from unspool.backends.openvino.convert import convert
from unspool.backends.openvino.graph_parts import run
from unspool.backends.openvino.imports import imported
from unspool.backends.openvino.model import OpenVINOModel
from unspool.backends.torch.model import TransformersModel
from unspool.engine.contracts import LanguageModel
from unspool.engine.tree import TokenTree
from unspool.errors import UnsupportedError

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 64,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,  # logits of size 1 and more, so that a wrong scale shows
}
TEXT = [3 + (7 * i) % 60 for i in range(30)]
TREE = TokenTree((40, 5, 6, 7, 5), (-1, 0, 0, 2, 1))


def build(config: PreTrainedConfig, kind: type[PreTrainedModel] | None = None) -> PreTrainedModel:
    """A model with a configuration of its own, since conversion changes that."""
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    return (kind(config) if kind else AutoModelForCausalLM.from_config(config)).float().eval()


def converted(model: PreTrainedModel, directory: Path) -> OpenVINOModel:
    convert(model, directory, "fp32", lambda message: None)
    return OpenVINOModel(directory, threads=1)


def furthest(model: LanguageModel, reference: PreTrainedModel) -> float:
    """Largest difference of a tree's logits from the model's own forward over each node's text."""
    session = model.open()
    session.score(TokenTree.chain(TEXT), rows=())
    session.commit(range(len(TEXT)))
    logits = session.score(TREE).logits
    with torch.no_grad():
        expected = [
            reference(input_ids=torch.tensor([[*TEXT, TREE.tokens[0], *TREE.path_tokens(node)]])).logits[0, -1].numpy()
            for node in range(len(TREE))
        ]
    return float(np.abs(logits - np.stack(expected)).max())


@pytest.mark.parametrize(
    "config",
    [
        GraniteConfig(**SIZES, logits_scaling=8.0, embedding_multiplier=12.0),
        CohereConfig(**SIZES, logit_scale=0.0625),
        MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
        MistralConfig(**SIZES, sliding_window=8),
    ],
    ids=lambda config: config.model_type,
)
def test_what_stands_behind_the_output_layer_is_in_the_graph(config: PreTrainedConfig, tmp_path: Path) -> None:
    assert furthest(converted(build(config), tmp_path), build(config)) < 1e-4


class Frozen(LlamaForCausalLM):
    """Its logits are divided by a number of the text that tracing makes a constant."""

    def forward(self, input_ids: Any = None, position_ids: Any = None, **others: Any) -> Any:
        output = super().forward(input_ids=input_ids, position_ids=position_ids, **others)
        output.logits = output.logits / float(input_ids[0, 0] + 1)
        return output


class Stretched(LlamaForCausalLM):
    """Late positions are others, as with rotary frequencies that change with the length."""

    def forward(self, input_ids: Any = None, position_ids: Any = None, **others: Any) -> Any:
        if position_ids is not None and int(position_ids.max()) > 200:
            position_ids = position_ids * 2
        return super().forward(input_ids=input_ids, position_ids=position_ids, **others)


@pytest.mark.parametrize(
    ("config", "kind", "message"),
    [
        (DiffLlamaConfig(**SIZES), None, "attends more than once in a layer"),
        (LlamaConfig(**SIZES), Frozen, "logits differ by up to"),
        (LlamaConfig(**SIZES), Stretched, "keys differ by up to"),
    ],
    ids=["two attentions", "frozen", "late positions"],
)
def test_what_computes_something_else_is_refused(
    config: PreTrainedConfig, kind: type[PreTrainedModel] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match=message) as caught:
        convert(build(config, kind), tmp_path, "int8", lambda message: None)
    assert "\n" not in str(caught.value) and str(caught.value).endswith("; try --backend transformers")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "advice"),
    [
        (
            FalconConfig(**SIZES, alibi=False, new_decoder_architecture=True, num_kv_heads=2),
            "try --backend transformers",
        ),
        (
            GPTNeoConfig(**SIZES, num_layers=2, num_heads=4, attention_types=[[["global"], 2]]),
            "try --backend transformers",
        ),
        (GPTNeoConfig(**SIZES, num_layers=2, num_heads=4, window_size=4, attention_types=[[["local"], 2]]), "another"),
        (FalconConfig(**SIZES, alibi=True), "use another model"),
    ],
    ids=["falcon", "gpt_neo", "gpt_neo, windows", "falcon, alibi"],
)
def test_the_other_backend_is_named_where_it_can_do_it(config: PreTrainedConfig, advice: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        convert(build(config), tmp_path, "fp32", lambda message: None)
    assert advice in str(caught.value).rpartition(";")[2]
    if "transformers" in advice:
        reference = build(config)
        assert furthest(TransformersModel.from_pretrained_model(reference), reference) < 1e-4
    else:
        with pytest.raises(UnsupportedError, match="token tree"):
            TransformersModel.from_pretrained_model(build(config))


def test_attention_beside_the_interface_that_takes_a_mask_is_taken() -> None:
    reference = build(StableLmConfig(**SIZES))
    assert not reference.is_backend_compatible()
    assert furthest(TransformersModel.from_pretrained_model(reference), reference) < 1e-4


def test_a_graph_in_parts_gives_what_it_gives_at_once(tmp_path: Path) -> None:
    model = converted(build(LlamaConfig(**SIZES, tie_word_embeddings=True)), tmp_path)
    ov = imported("openvino")
    graph = ov.Core().read_model(tmp_path / "openvino_model.xml")
    session = model.open()
    inputs = [
        session.inputs(tree) | {"past_keys": session.cache[0], "past_values": session.cache[1]}
        for tree in (TREE, TokenTree.chain(TEXT))
    ]
    names = [op.get_friendly_name() for op in graph.get_ordered_ops()]
    whole, parts = run(graph, inputs, 1 << 40), run(graph, inputs, 1)
    for one, other, given in zip(whole, parts, inputs, strict=True):
        assert one.keys() == other.keys() == {"logits", "new_keys", "new_values", "hidden", "peaks"}
        for name in one:
            np.testing.assert_allclose(one[name], other[name], atol=1e-5)
        logits, *_ = model.infer(session.cache, session.inputs(TREE) if given is inputs[0] else inputs[1])
        np.testing.assert_allclose(one["logits"], logits, atol=1e-4)
    assert names == [op.get_friendly_name() for op in graph.get_ordered_ops()]


def test_differences_are_parts_of_the_range() -> None:
    expected = np.array([100.0, 104.0], np.float32)
    assert Compared("x", expected + np.array([0, 1], np.float32), expected).difference == 0.5
    assert Compared("x", expected, expected).difference == 0
    holed = np.array([100.0, -np.inf], np.float32)
    assert Compared("x", holed, holed).difference == 0
    for found in (holed, np.array([100.0, np.nan], np.float32), expected[:1]):
        assert not Compared("x", found, expected).difference < BOUND
    assert not Compared("x", expected, np.full(2, np.nan, np.float32)).difference < BOUND
    assert not Compared("x", np.full(2, 1e-9, np.float32), np.zeros(2, np.float32)).difference < BOUND


def test_ids_are_all_over_the_vocabulary_and_mean_nothing() -> None:
    model = build(LlamaConfig(**{**SIZES, "vocab_size": 1000}, eos_token_id=618, pad_token_id=236))
    ids = spread_ids(model, 48)
    assert ids == spread_ids(model, 48) and len(set(ids)) == 48
    assert not {618, 236} & set(ids)
    assert max(np.diff(sorted([0, *ids, 999]))) < 50
    assert len(spread_ids(build(LlamaConfig(**{**SIZES, "vocab_size": 5})), 48)) == 48


def test_rows_that_int4_cannot_share_scales_in_are_refused_before_any_work(tmp_path: Path) -> None:
    reports: list[str] = []
    with pytest.raises(UnsupportedError, match=r"one scale per 64 weights .* has rows of 32; use --weights int8"):
        convert(LlamaForCausalLM(LlamaConfig(**SIZES)).eval(), tmp_path, "int4", reports.append)
    assert reports == [] and not list(tmp_path.iterdir())
