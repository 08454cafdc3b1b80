"""Loads masked-diffusion checkpoints from a Hugging Face directory without their bundled code.

LLaDA and Dream are transformers that stock classes can run under other names: LLaDA is a Llama, Dream is a Qwen2 whose
rows predict the next position. A checkpoint that asks for more than its stock class does is refused. Directories
written by ``unspool train diffusion``, and any causal LM trained on masks, have a ``canvas.json`` with ``mask_id``,
``eos_token_id`` and ``shift`` next to their config.

DiffusionGemma is refused: it starts from random tokens instead of masks, may change any token at every step, and
feeds back its last logits, so it breaks this loop's contracts (masked slots, permanent commits).

All weights are loaded at once, in the checkpoint's own precision. Only tiny random checkpoints of LLaDA and Dream have
been loaded here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.errors import UnspoolError, UnsupportedError
from unspool.models.diffusion import CANVAS

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from unspool.backends.torch.canvas import TransformersDenoiser


_LLADA_NAMES = {
    "model.transformer.wte.weight": "model.embed_tokens.weight",
    "model.transformer.ln_f.weight": "model.norm.weight",
    "model.transformer.ff_out.weight": "lm_head.weight",
}
_LLADA_BLOCK = {
    "attn_norm": "input_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_norm": "post_attention_layernorm",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}
_LLADA_MUST = {
    "block_type": "llama",
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "rope": True,
    "alibi": False,
    "attention_layer_norm": False,
    "bias_for_layer_norm": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "input_emb_norm": False,
    "scale_logits": False,
}


def load_denoiser(directory: Path, device: str = "cpu") -> TransformersDenoiser:
    """Load a masked-diffusion model.

    Args:
        directory: with ``config.json`` and safetensors files.
        device: a torch device; CUDA is untested here.

    Raises:
        UnspoolError: if files are missing or do not match, or the checkpoint names no mask.
        UnsupportedError: if the checkpoint asks for something that the stock class does not do.
    """
    from unspool.backends.torch.canvas import TransformersDenoiser

    config = _json(directory / "config.json", "is not a model directory in Hugging Face layout")
    kind = str(config.get("model_type", "")).lower()
    if kind.startswith("diffusion_gemma"):
        raise UnsupportedError(
            f"{directory} is a DiffusionGemma, which has no masks: its tokens start at random and change at every "
            "step; run it with transformers' own generate()"
        )
    if kind == "llada":
        model = _loaded(directory, *_llada(directory, config))
        mask, eos, shift = config.get("mask_token_id"), config.get("eos_token_id"), 0
    elif kind == "dream":
        model = _loaded(directory, *_dream(directory, config))
        mask, eos, shift = config.get("mask_token_id"), config.get("eos_token_id"), 1
    else:
        what = (
            f"has a {kind or 'model'} and no {CANVAS} that names its mask, so it is not known to be a diffusion model"
        )
        about = _json(directory / CANVAS, what)
        model = _stock(directory)
        mask, eos, shift = about.get("mask_id"), about.get("eos_token_id"), int(about.get("shift", 0))
    return TransformersDenoiser(model.to(device).eval(), mask, eos, shift)


def _json(file: Path, otherwise: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        raise UnspoolError(f"{file.parent} {otherwise}; there is no {file.name}") from None
    except ValueError as error:
        raise UnspoolError(f"{file} is not valid JSON ({error}); fetch it again") from error
    return content


def _stock(directory: Path) -> PreTrainedModel:
    from unspool.backends.prepare import load_directory

    model: PreTrainedModel = load_directory(directory, directory.name, "auto")
    return model


def _llada(directory: Path, config: dict[str, Any]) -> tuple[PretrainedConfig, dict[str, torch.Tensor]]:
    from transformers import LlamaConfig

    for name, must in _LLADA_MUST.items():
        if config.get(name, must) != must:
            raise UnsupportedError(f"{directory} has {name}={config[name]!r}; only {must!r} is supported for LLaDA")
    hidden = int(config["d_model"])
    stock = LlamaConfig(
        vocab_size=config.get("embedding_size") or config["vocab_size"],
        hidden_size=hidden,
        intermediate_size=config.get("mlp_hidden_size") or hidden * int(config["mlp_ratio"]),
        num_hidden_layers=config["n_layers"],
        num_attention_heads=config["n_heads"],
        num_key_value_heads=config.get("n_kv_heads") or config["n_heads"],
        max_position_embeddings=config["max_sequence_length"],
        rms_norm_eps=config["rms_norm_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": float(config["rope_theta"])},
        tie_word_embeddings=bool(config["weight_tying"]),
        is_causal=False,
    )
    return stock, {_llada_name(name): tensor for name, tensor in _tensors(directory).items()}


def _llada_name(name: str) -> str:
    if name in _LLADA_NAMES:
        return _LLADA_NAMES[name]
    parts = name.removeprefix("model.transformer.blocks.").split(".")  # number, part, "weight"
    if len(parts) != 3 or parts[1] not in _LLADA_BLOCK:
        raise UnsupportedError(f"the checkpoint contains {name}, which LLaDA's architecture does not have")
    return f"model.layers.{parts[0]}.{_LLADA_BLOCK[parts[1]]}.weight"


def _dream(directory: Path, config: dict[str, Any]) -> tuple[PretrainedConfig, dict[str, torch.Tensor]]:
    from transformers import Qwen2Config

    own = ("model_type", "auto_map", "architectures", "transformers_version", "torch_dtype", "dtype")
    stock = Qwen2Config(**{k: v for k, v in config.items() if k not in own} | {"is_causal": False})
    return stock, _tensors(directory)


def _tensors(directory: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise UnspoolError(f"{directory} has no safetensors files; convert the checkpoint to safetensors first")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def _loaded(directory: Path, config: PretrainedConfig, tensors: dict[str, torch.Tensor]) -> PreTrainedModel:
    from transformers import LlamaForCausalLM, Qwen2ForCausalLM

    kind = LlamaForCausalLM if config.model_type == "llama" else Qwen2ForCausalLM
    dtype = next(iter(tensors.values())).dtype
    model, info = kind.from_pretrained(None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True)
    wrong = {what: sorted(names) for what, names in info.items() if names}
    if wrong:
        raise UnspoolError(f"{directory}: weights and config do not match: {wrong}; fetch the model again")
    return model
