"""Writes tiny random models of transformers as GGUF, in the form that llama.cpp's converter gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 384,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.15,
}
PIECES = ["<pad>", "<s>", "</s>"]

Values = NDArray[np.float32]


def tiny(kind: str, **options: Any) -> Any:
    """A random model with norms and biases that are not the identity."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES | options)).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight) * (0.05 if "norm" in name else 0.2))
    return model


def write(
    path: Path,
    model: Any,
    architecture: str = "llama",
    settings: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Values] | None = None,
    drop: Iterable[str] = (),
    fields: Callable[[gguf.GGUFWriter], object] = lambda writer: None,
    ends: bool = True,
    quantise: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
) -> Path:
    """Write ``model``.

    Args:
        settings: below the architecture's name; a value of None leaves one out.
        tensors: added, or in place of the model's.
        drop: names of tensors to leave out.
        fields: adds fields of the tokenizer.
        ends: whether the header names the end of text.
        quantise: type of the matrices whose rows it divides; the others are F32.
    """
    config = model.config.get_text_config()
    writer = gguf.GGUFWriter(str(path), architecture)
    for key, value in (_settings(architecture, config) | dict(settings or {})).items():
        if value is not None:
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add[type(value)](f"{architecture}.{key}", value)
    names = [*PIECES, "a", "b", "ab", *(chr(0x4E00 + i) for i in range(config.vocab_size - len(PIECES) - 3))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(names)
    writer.add_token_merges(["a b"])
    writer.add_token_types([3 if name in PIECES else 1 for name in names])
    writer.add_bos_token_id(1)
    if ends:
        writer.add_eos_token_id(2)
    fields(writer)
    for name, tensor in (_tensors(architecture, model) | dict(tensors or {})).items():
        if name in drop:
            continue
        kind = quantise if tensor.ndim == 2 and tensor.shape[1] % gguf.GGML_QUANT_SIZES[quantise][0] == 0 else None
        data = np.ascontiguousarray(tensor, dtype=np.float32)
        if kind is None or kind is gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _settings(architecture: str, config: Any) -> dict[str, Any]:
    """What llama.cpp's converter writes of a model without scaled rotary embeddings."""
    found = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "attention.head_count": config.num_attention_heads,
    }
    if architecture == "gpt2":
        return found | {
            "feed_forward_length": config.n_inner,
            "attention.layer_norm_epsilon": config.layer_norm_epsilon,
        }
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    found |= {
        "feed_forward_length": config.intermediate_size,
        "attention.head_count_kv": config.num_key_value_heads,
        "rope.freq_base": float(rope["rope_theta"]),
    }
    if architecture not in ("gemma2", "gemma3"):
        found["rope.dimension_count"] = int(head * rope.get("partial_rotary_factor", 1.0))
    if architecture in ("llama", "qwen3", "qwen3moe", "gemma2", "gemma3"):
        found |= {"attention.key_length": head, "attention.value_length": head}
    if architecture == "gemma2":
        found["attn_logit_softcapping"] = config.attn_logit_softcapping
        found["final_logit_softcapping"] = config.final_logit_softcapping
    if architecture in ("gemma2", "gemma3", "phi3") and config.sliding_window is not None:
        found["attention.sliding_window"] = config.sliding_window
    if architecture == "stablelm":
        found["use_parallel_residual"] = config.use_parallel_residual
    if architecture in ("qwen2moe", "qwen3moe"):
        found |= {
            "expert_count": config.num_experts,
            "expert_used_count": config.num_experts_per_tok,
            "expert_feed_forward_length": config.moe_intermediate_size,
        }
    if architecture == "qwen2moe":
        found["expert_shared_feed_forward_length"] = config.shared_expert_intermediate_size
    if architecture == "llama":
        found["vocab_size"] = config.vocab_size
    for name in ("layer_norm_eps", "norm_epsilon", "norm_eps"):
        if hasattr(config, name):
            return found | {"attention.layer_norm_epsilon": getattr(config, name)}
    return found | {"attention.layer_norm_rms_epsilon": config.rms_norm_eps}


def _tensors(architecture: str, model: Any) -> dict[str, Values]:
    config = model.config.get_text_config()
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    found: dict[str, Values] = {}
    for name, weight in model.state_dict().items():
        value = weight.numpy()
        stem, _, suffix = name.rpartition(".")
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if architecture in ("gemma2", "gemma3", "nemotron") and name.endswith("norm.weight"):
            value = value + 1
        if architecture == "llama" and stem.endswith(("q_proj", "k_proj")):
            # llama.cpp's order of the rotated halves
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            value = value.reshape(heads, 2, -1, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)
        if architecture == "gpt2" and stem.endswith(("c_attn", "c_proj", "c_fc")) and value.ndim == 2:
            value = value.T
        if name.endswith("experts.gate_up_proj"):
            layer, half = name.split(".")[2], value.shape[1] // 2
            found[f"blk.{layer}.ffn_gate_exps.weight"] = value[:, :half]
            found[f"blk.{layer}.ffn_up_exps.weight"] = value[:, half:]
        elif name.endswith("experts.down_proj"):
            found[f"blk.{name.split('.')[2]}.ffn_down_exps.weight"] = value
        else:
            ours = names.get_name(stem)
            assert ours, name
            found[f"{ours}.{suffix}"] = value[0] if name.endswith("shared_expert_gate.weight") else value
    return found
