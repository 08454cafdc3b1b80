"""GGUF files against the models that were written: nothing of the file is lost, or it is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf as package
import numpy as np
import pytest
import torch

from tests.models import gguf_files
from unspool.backends import gguf, prepare
from unspool.errors import UnspoolError, UnsupportedError
from unspool.models import ends, gguf_header
from unspool.models.resolve import ModelSource

TEXT = [3 + (7 * i) % 250 for i in range(60)]
PLAIN = 1 / 10000.0 ** (np.arange(0, 16, 2) / 16)


def source(path: Path) -> ModelSource:
    return ModelSource("gguf", path.name, path, "key")


def load(path: Path) -> Any:
    return prepare.load_torch(source(path))


def logprobs(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([TEXT])).logits[0].double(), -1)


def rope(**parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 10000.0, **parameters}}


def scaled(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope.scaling.type": kind, "rope.scaling.factor": 4.0, **more}


GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 20}
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "num_hidden_layers": 2}
FACTORS = [1.0 + i / 8 for i in range(8)]
LONG = [2.0 + i for i in range(8)]

MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 32}, {}),
    "qwen2, heads alone": ("qwen2", {"num_key_value_heads": 4}, {"attention.head_count_kv": None}),
    "llama, neutral settings": ("llama", {}, {"expert_count": 0, "logit_scale": 1.0, "rope.scaling.type": "none"}),
    "linear": ("llama", rope(rope_type="linear", factor=4.0), scaled("linear")),
    "linear, as old converters wrote it": (
        "llama", rope(rope_type="linear", factor=4.0), {"rope.scale_linear": 4.0}
    ),
    "yarn": (
        "llama",
        rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=64),
        scaled("yarn", **{"rope.scaling.original_context_length": 64}),
    ),
    "qwen2": ("qwen2", rope(rope_theta=1e6), {}),
    "qwen3": ("qwen3", {"head_dim": 32}, {}),
    "qwen2moe": ("qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 80}, {}),
    "qwen3moe": ("qwen3_moe", {**EXPERTS, "norm_topk_prob": True, "head_dim": 32}, {}),
    "phi3": ("phi3", {"sliding_window": 20, **rope(partial_rotary_factor=0.75)}, {}),
    "gemma2": ("gemma2", {**GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}, {}),
    "gemma3": (
        "gemma3_text", {**GEMMA, "num_hidden_layers": 6, "rope_parameters": GEMMA_ROPE},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
    ),
    "stablelm": ("stablelm", rope(rope_theta=3e4, partial_rotary_factor=0.5), {}),
    "starcoder2": ("starcoder2", rope(rope_theta=1e5), {}),
    "nemotron": ("nemotron", {"norm_eps": 1e-3}, {}),
    "gpt2": ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 96, "n_positions": 256}, {}),
}  # fmt: skip

ARCHITECTURES = {"gemma3_text": "gemma3", "qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe"}


@pytest.mark.parametrize("name", MODELS)
def test_a_gguf_is_the_model_that_was_written(name: str, tmp_path: Path) -> None:
    kind, options, settings = MODELS[name]
    model = gguf_files.tiny(kind, **options)
    path = gguf_files.write(tmp_path / "m.gguf", model, ARCHITECTURES.get(kind, kind), settings)
    assert (logprobs(load(path)) - logprobs(model)).abs().max() < 1e-5


def test_the_largest_gemma_scales_attention_by_the_width_of_the_hidden_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gguf._WIDE_SCALE, "gemma3", 2)
    model = gguf_files.tiny("gemma3_text", **GEMMA | {"num_hidden_layers": 2, "query_pre_attn_scalar": 16})
    path = gguf_files.write(tmp_path / "m.gguf", model, "gemma3")
    assert (logprobs(load(path)) - logprobs(model)).abs().max() < 1e-5


def llama3() -> tuple[Any, dict[str, Any]]:
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    model = gguf_files.tiny("llama", **rope(rope_type="llama3", **scaling))
    return model, {"rope_freqs.weight": PLAIN / model.model.rotary_emb.inv_freq.numpy()}


def test_factors_of_llama_3_are_applied(tmp_path: Path) -> None:
    model, tensors = llama3()
    path = gguf_files.write(tmp_path / "m.gguf", model, tensors=tensors)
    assert (logprobs(load(path)) - logprobs(model)).abs().max() < 1e-4
    tensors["rope_freqs.weight"] = tensors["rope_freqs.weight"][:4]
    with pytest.raises(UnsupportedError, match="4 factors for 8 rotary frequencies"):
        load(gguf_files.write(tmp_path / "m.gguf", model, tensors=tensors))


def test_factors_of_llama_3_are_in_the_graph_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unspool.backends.openvino.model import OpenVINOModel
    from unspool.engine.tree import TokenTree

    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "cache"))
    model, tensors = llama3()
    path = gguf_files.write(tmp_path / "m.gguf", model, tensors=tensors)
    graph = OpenVINOModel(prepare.converted(source(path), "fp32", lambda text: None), 1)
    scores = torch.from_numpy(graph.open().score(TokenTree.chain(TEXT)).logits).double()
    assert (torch.log_softmax(scores, -1) - logprobs(model)).abs().max() < 1e-3


def test_longrope_is_applied(tmp_path: Path) -> None:
    longrope = {"rope_type": "longrope", "short_factor": FACTORS, "long_factor": LONG}
    model = gguf_files.tiny("phi3", **rope(**longrope, original_max_position_embeddings=64, attention_factor=1.25))
    settings = {"rope.scaling.original_context_length": 64, "rope.scaling.attn_factor": 1.25}
    tensors = {"rope_factors_long.weight": np.array(LONG), "rope_factors_short.weight": np.array(FACTORS)}
    path = gguf_files.write(tmp_path / "m.gguf", model, "phi3", settings, tensors)
    assert (logprobs(load(path)) - logprobs(model)).abs().max() < 1e-5
    path = gguf_files.write(path, model, "phi3", settings, tensors, drop=["rope_factors_long.weight"])
    with pytest.raises(UnsupportedError, match="factors for only long or only short texts"):
        load(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expert_count", 8),
        ("attention.head_count_kv", None),
        ("attention.scale", 0.5),
        ("logit_scale", 16.0),
        ("attention.sliding_window", 32),
        ("attention.value_length", 8),
        ("rope.dimension_count", 8),
        ("rope.scaling.type", "longrope"),
        ("rope.scaling.attn_factor", 2.0),
        ("attn_logit_softcapping", 50.0),
        ("a_setting_of_tomorrow", "on"),
    ],
)
def test_a_setting_that_cannot_be_applied_is_named(key: str, value: Any, tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", gguf_files.tiny("llama"), settings={key: value})
    with pytest.raises(
        UnsupportedError, match=rf"m\.gguf has .*({key}|rotary frequencies).*Hugging Face layout"
    ) as told:
        load(path)
    assert "\n" not in str(told.value)


def test_window_of_layers_that_have_none_is_refused(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", gguf_files.tiny("qwen2"), "qwen2", {"attention.sliding_window": 32})
    with pytest.raises(UnsupportedError, match=r"qwen2\.attention\.sliding_window = 32"):
        load(path)


def test_missing_left_over_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    model, path = gguf_files.tiny("llama"), tmp_path / "m.gguf"
    gguf_files.write(path, model, drop=["blk.2.ffn_down.weight"])
    with pytest.raises(UnspoolError, match=r"m\.gguf lacks 1 weights, first model\.layers\.2\.mlp\.down_proj\.weight"):
        load(path)
    gguf_files.write(path, model, tensors={"blk.0.attn_q_norm.weight": np.ones(16)})
    with pytest.raises(UnspoolError, match=r"contains 1 tensors .* first blk\.0\.attn_q_norm\.weight"):
        load(path)
    gguf_files.write(path, model, settings={"feed_forward_length": 64})
    with pytest.raises(UnspoolError, match=r"9 weights .* first model\.layers\.0\.mlp\.down_proj\.weight: \[64, 96\]"):
        load(path)


def test_an_architecture_that_transformers_does_not_read_is_one_line(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", gguf_files.tiny("llama"), "granite")
    with pytest.raises(UnspoolError, match="granite") as told:
        load(path)
    assert "\n" not in str(told.value)


def ids(**named: int) -> Any:
    return lambda writer: [writer.add_uint32(f"tokenizer.ggml.{name}_token_id", value) for name, value in named.items()]


@pytest.mark.parametrize(
    ("fields", "named", "expected"),
    [
        (ids(), True, (2,)),
        (ids(eot=7, eom=8), True, (2, 7, 8)),
        (ids(eot=7, eos=2**32 - 1), False, (2, 7)),  # </s> is a control token of an end's text
        (ids(), False, ()),
        (ids(eos=2**32 - 1), False, ()),
    ],
)
def test_ends_that_the_header_names(fields: Any, named: bool, expected: tuple[int, ...], tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", gguf_files.tiny("llama"), fields=fields, ends=named)
    model = load(path)
    assert ends.of_torch(model) == expected == ends.of_gguf(gguf_header.read(path))
    # what the conversion keeps, and what transformers' own generate ends at
    assert model.config.eos_token_id == model.generation_config.eos_token_id == (list(expected) or None)


def header(tokens: dict[str, int], **fields: Any) -> gguf_header.GgufHeader:
    lists = {"tokens": list(tokens), "token_type": list(tokens.values()), **fields}
    return gguf_header.GgufHeader(Path("m.gguf"), {f"tokenizer.ggml.{k}": v for k, v in lists.items()}, {})


def test_ends_that_llama_cpp_knows_by_their_text() -> None:
    tokens = {"a": 1, "<|endoftext|>": 3, "<|im_end|>": 3, "</s>": 1, "<|end|>": 3}
    assert ends.of_gguf(header(tokens, eos_token_id=2)) == (1, 2, 4)  # </s> is an ordinary token here
    assert ends.of_gguf(header(tokens)) == ()
    harmony = tokens | {"<|return|>": 3, "<|call|>": 3}
    assert ends.of_gguf(header(harmony, eos_token_id=5)) == (1, 2, 5, 6)


# F16 and BF16 hold the weights rounded; the others are quantised by the gguf package.
@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_weights_are_those_that_the_file_de_quantises_to(kind: str, tmp_path: Path) -> None:
    quantisation = package.GGMLQuantizationType[kind]
    model = gguf_files.tiny("llama")
    path = gguf_files.write(tmp_path / "m.gguf", model, quantise=quantisation)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                blocks = package.quants.quantize(weight.numpy(), quantisation)
                weight.copy_(torch.from_numpy(package.quants.dequantize(blocks, quantisation)))
    assert (logprobs(load(path)) - logprobs(model)).abs().max() < 1e-4
