"""A random Llama as a GGUF file, and the log-probabilities of the weights that a library reads from one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 512,
    "vocab_size": 512,
    "max_position_embeddings": 256,
    "initializer_range": 0.08,
}


class Library(Protocol):
    """Writes quantised files and reads their weights."""

    def write(self, path: Path, model: Any, name: str, kind: int) -> None:
        """A model as a GGUF file of a type, by its name and llama.cpp's number."""

    def values(self, data: NDArray[np.uint8], kind: int, n: int) -> Values:
        """The ``n`` weights that the bytes of a tensor of a kind are."""


class Pure:
    """The package gguf: all matrices in the one type."""

    def write(self, path: Path, model: Any, name: str, kind: int) -> None:
        write(path, model, name)

    def values(self, data: NDArray[np.uint8], kind: int, n: int) -> Values:
        import gguf

        found: Values = gguf.quants.dequantize(data, gguf.GGMLQuantizationType(kind)).reshape(-1)[:n]
        return found


def llama() -> Any:
    """The random model, of seed 0."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()


def names(layers: int) -> dict[str, str]:
    """transformers' name of every weight by llama.cpp's."""
    blocks = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    found = top | {f"blk.{i}.{k}": f"model.layers.{i}.{v}" for i in range(layers) for k, v in blocks.items()}
    return {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in found.items()}


def reordered(name: str, value: Values, config: Any, back: bool) -> Values:
    """Queries and keys in llama.cpp's order of the rotated halves, or back in transformers'."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return value
    halves = (heads, -1, 2) if back else (heads, 2, value.shape[0] // heads // 2)
    turned: Values = value.reshape(*halves, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
    return turned


def write(path: Path, model: Any, quantised: str = "F32") -> None:
    """The model as a GGUF file, its matrices in a type that the package gguf can write."""
    import gguf

    kind = gguf.GGMLQuantizationType[quantised]

    c = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    writer.add_vocab_size(c.vocab_size)
    pieces = ["<s>", "</s>", "a", "b", "ab", *(chr(0x4E00 + i) for i in range(c.vocab_size - 5))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_merges(["a b"])
    writer.add_token_types([3, 3, *[1] * (c.vocab_size - 2)])
    writer.add_eos_token_id(1)
    weights = model.state_dict()
    for ours, theirs in names(c.num_hidden_layers).items():
        value = reordered(ours, weights[theirs].numpy(), c, back=False)
        value = np.ascontiguousarray(value)
        if value.ndim > 1:
            writer.add_tensor(ours, gguf.quants.quantize(value, kind), raw_dtype=kind)
        else:
            writer.add_tensor(ours, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def reference(model: Any, path: Path, library: Library, tokens: Sequence[int]) -> Values:
    """Log-probabilities [tokens, vocabulary] of the model with the weights that a library reads from a file."""
    import torch

    from unspool.models import gguf_header

    header = gguf_header.read(path)
    with torch.no_grad():
        for ours, theirs in names(model.config.num_hidden_layers).items():
            tensor = header.tensors[ours]
            data = np.fromfile(path, np.uint8, tensor.size, offset=tensor.start)
            values = library.values(data, tensor.kind, int(np.prod(tensor.shape))).reshape(tensor.shape)
            model.get_parameter(theirs).copy_(torch.from_numpy(reordered(ours, values, model.config, back=True).copy()))
        return log_softmax(model(torch.tensor([list(tokens)])).logits[0].numpy())


def log_softmax(logits: NDArray[Any]) -> Values:
    """Of every row, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    found: Values = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found
