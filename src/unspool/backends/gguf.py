"""Loads a GGUF through transformers and makes sure that nothing of the file is lost.

transformers' loader takes the settings in its mapping and the tensors that match a weight, and silently ignores the
rest. Here every setting of the header and every tensor is accounted for: the mapping knows it, or it is applied to the
configuration, or it has no effect (with the reason), or the file is refused. Several settings and tensors together
decide the rotary frequencies, so these are compared with llama.cpp's formula afterwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unspool.backends import losses
from unspool.errors import UnsupportedError
from unspool.models import ends
from unspool.models.gguf_header import GgufHeader

# Settings that transformers' mapping lacks for some architectures, and their names in its configurations.
_NAMES = {
    "attention.key_length": "head_dim",
    "attention.layer_norm_epsilon": "norm_eps",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "context_length": "n_positions",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "feed_forward_length": "n_inner",
    "final_logit_softcapping": "final_logit_softcapping",
    "use_parallel_residual": "use_parallel_residual",
}

# Values of settings that have no effect, as llama.cpp reads them.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.scale": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_weights_scale": (0.0, 1.0),
    "logit_scale": (0.0, 1.0),
    "nextn_predict_layers": (0,),
    "residual_scale": (0.0, 1.0),
}

_NO_EFFECT = {
    "tensor_data_layout",  # a note by the converter
    "vocab_size",  # follows from the token list, and the embedding's shape is compared
}

_ROPE = {
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",  # whether the model was trained with the scaling: no effect on a pass
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
}
_ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")

# Layers of models whose attention llama.cpp scales by hidden size / heads, not by key_length.
_WIDE_SCALE = {"gemma2": 46, "gemma3": 62}


def load(header: GgufHeader, name: str, dtype: Any) -> Any:
    """The de-quantised torch model of a GGUF.

    Args:
        name: for messages.
        dtype: a torch dtype.

    Raises:
        UnspoolError: if a setting affects the text and cannot be applied, or a tensor is missing or left over.
        Exception: any other error of transformers.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    where: dict[str, Any] = {"gguf_file": header.path.name, "local_files_only": True}
    folder = header.path.parent
    config = AutoConfig.from_pretrained(folder, **where)
    _configure(header, config)
    model, told = AutoModelForCausalLM.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        trust_remote_code=False,
        **where,
    )
    losses.refuse(name, model, told, _untaken(header, model))
    _rotate(header, model)
    named = list(ends.of_gguf(header)) or None
    model.config.eos_token_id = named
    model.generation_config.eos_token_id = named
    # A de-quantised model is an ordinary one; transformers would still call it quantised.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model


def _refused(header: GgufHeader, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{header.path.name} has {what}, which transformers' loader ignores, so the text would be another model's; "
        "take the model as a directory in Hugging Face layout"
    )


def _configure(header: GgufHeader, config: Any) -> None:
    from transformers.modeling_gguf_pytorch_utils import GGUF_TO_TRANSFORMERS_MAPPING

    known: dict[str, dict[str, str | None]] = GGUF_TO_TRANSFORMERS_MAPPING["config"]
    mapping = known.get(header.architecture) or known.get(config.model_type) or {}
    settings = header.settings()
    rotary = getattr(config, "rope_parameters", None) is not None
    for key, value in settings.items():
        if key == "attention.value_length":
            fine = value == settings.get("attention.key_length", _head_dim(config))
        elif key == "attention.key_length" and value == _head_dim(config):
            fine = True
        elif key in _NAMES and hasattr(config, _NAMES[key]):
            setattr(config, _NAMES[key], None if value == 0 and not isinstance(value, bool) else value)
            fine = True
        elif key in _ROPE:
            fine = rotary
        else:
            fine = bool(mapping.get(key)) or key in _NO_EFFECT or value in _NEUTRAL.get(key, ())
        if not fine:
            raise _refused(header, f"{header.architecture}.{key} = {value}")
    if "attention.head_count_kv" not in settings and hasattr(config, "num_key_value_heads"):
        if header.architecture == "llama":  # without it the loader keeps llama.cpp's order of queries and keys
            raise _refused(header, "no llama.attention.head_count_kv, by which queries and keys are ordered")
        config.num_key_value_heads = config.num_attention_heads
    for name, key in (("bos", "bos"), ("pad", "padding")):  # not transformers' defaults, which are another model's
        token = header.fields.get(f"tokenizer.ggml.{key}_token_id")
        setattr(config, f"{name}_token_id", token if token is not None and token < config.vocab_size else None)
    for tensor, name in (("attn_q.bias", "attention_bias"), ("ffn_up.bias", "mlp_bias")):
        if f"blk.0.{tensor}" in header.tensors and hasattr(config, name):
            setattr(config, name, True)
    if header.architecture in _WIDE_SCALE:
        wide = config.num_hidden_layers == _WIDE_SCALE[header.architecture]
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads if wide else _head_dim(config)
    _check_window(header, config, settings)
    if rotary:
        _configure_rope(header, config, settings)


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _check_window(header: GgufHeader, config: Any, settings: dict[str, Any]) -> None:
    window = settings.get("attention.sliding_window")
    kinds = getattr(config, "layer_types", None)
    if window and (getattr(config, "sliding_window", None) != window or (kinds and "sliding_attention" not in kinds)):
        raise _refused(header, f"{header.architecture}.attention.sliding_window = {window}")


def _rope_sets(config: Any) -> dict[str, dict[str, Any]]:
    """Rotary parameters, one set or one per kind of layer, by the prefix of the frequencies' name."""
    sets = {
        f"{kind}_": parameters for kind, parameters in config.rope_parameters.items() if isinstance(parameters, dict)
    }
    return sets or {"": config.rope_parameters}


def _configure_rope(header: GgufHeader, config: Any, settings: dict[str, Any]) -> None:
    sets = _rope_sets(config)
    if sets.keys() - {"", "full_attention_", "sliding_attention_"}:
        raise _refused(header, f"rotary embeddings of {', '.join(sorted(sets))}")
    for prefix, parameters in sets.items():
        parameters["rope_theta"] = _theta(settings, prefix)
        share = _rope_dim(settings, config) / _head_dim(config)
        if share != 1 or "partial_rotary_factor" in parameters:
            parameters["partial_rotary_factor"] = share
            if hasattr(config, "partial_rotary_factor"):
                config.partial_rotary_factor = share
        if prefix != "sliding_attention_":
            parameters.update(_scaling(header, config, settings))


def _theta(settings: dict[str, Any], prefix: str) -> float:
    key = "rope.freq_base_swa" if prefix == "sliding_attention_" else "rope.freq_base"
    return float(settings.get(key, 10000.0))


def _rope_dim(settings: dict[str, Any], config: Any) -> int:
    return int(settings.get("rope.dimension_count") or _head_dim(config))


def _scaling(header: GgufHeader, config: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """transformers' parameters for the scaling that llama.cpp would apply."""
    kind = settings.get("rope.scaling.type", "linear")
    factor = settings.get("rope.scaling.factor") or settings.get("rope.scale_linear") or 1.0
    attention = settings.get("rope.scaling.attn_factor") or 1.0
    original = settings.get("rope.scaling.original_context_length") or config.max_position_embeddings
    long, short = (f"rope_factors_{length}.weight" in header.tensors for length in ("long", "short"))
    if long and short:
        return {
            "rope_type": "longrope",
            "long_factor": header.values("rope_factors_long.weight").tolist(),
            "short_factor": header.values("rope_factors_short.weight").tolist(),
            "original_max_position_embeddings": original,
            "attention_factor": attention,
        }
    if long or short:
        raise _refused(header, "rotary factors for only long or only short texts")
    if attention != 1:
        raise _refused(header, f"{header.architecture}.rope.scaling.attn_factor = {attention}")
    if kind == "yarn":
        betas = {f"beta_{end}": settings.get(f"rope.scaling.yarn_beta_{end}") for end in ("fast", "slow")}
        return {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
            **{name: beta for name, beta in betas.items() if beta},
        }
    if kind == "linear" and factor != 1:
        return {"rope_type": "linear", "factor": factor}
    if kind in ("none", "linear"):
        return {"rope_type": "default"}
    raise _refused(header, f"{header.architecture}.rope.scaling.type = {kind}")


def _untaken(header: GgufHeader, model: Any) -> list[str]:
    """Names of the tensors that transformers' loader assigned to no weight."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    class Flat:
        """The model without its submodules: the mapping would be built again for each of them."""

        config, state_dict = model.config, model.state_dict

        def named_children(self) -> tuple[()]:
            return ()

    processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(config=model.config.to_dict())
    taken = get_gguf_hf_weights_map(Flat(), processor)
    merged = {f"{name}.weight" for name in taken}  # experts are named without the suffix
    special = {*_ROPE_TENSORS, *(["output.weight"] if header.architecture == "gpt2" else [])}
    return [name for name in header.tensors if name not in taken and name not in merged and name not in special]


def _rotate(header: GgufHeader, model: Any) -> None:
    """Divide the frequencies by the file's factors (Llama 3.1 and later) and compare them with llama.cpp's."""
    import torch

    config, settings = model.config.get_text_config(), header.settings()
    if getattr(config, "rope_parameters", None) is None:
        if any(name in header.tensors for name in _ROPE_TENSORS):
            raise _refused(header, "factors of rotary embeddings")
        return
    dim = _rope_dim(settings, config)
    for prefix, parameters in _rope_sets(config).items():
        if prefix and prefix.removesuffix("_") not in config.layer_types:
            continue
        name, theta = f"{prefix}inv_freq", _theta(settings, prefix)
        # In torch and float32, as in transformers, so that a file without factors changes no bit.
        wanted = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
        if parameters["rope_type"] == "linear":
            wanted = wanted / parameters["factor"]
        if parameters["rope_type"] == "longrope":
            wanted = wanted / torch.tensor(parameters["short_factor"])
        factors = None
        if "rope_freqs.weight" in header.tensors and prefix != "sliding_attention_":
            factors = torch.from_numpy(header.values("rope_freqs.weight"))
            if factors.shape != wanted.shape:
                raise _refused(header, f"{len(factors)} factors for {len(wanted)} rotary frequencies")
            wanted = wanted / factors
        modules = [module for module in model.modules() if name in dict(module.named_buffers(recurse=False))]
        if not modules:
            raise _refused(header, "rotary embeddings")
        for module in modules:
            for buffer in (name, f"{prefix}original_inv_freq"):
                if factors is not None and hasattr(module, buffer):
                    setattr(module, buffer, getattr(module, buffer) / factors)
            found = getattr(module, name)
            if parameters["rope_type"] != "yarn" and (
                found.shape != wanted.shape or not np.allclose(found.double(), wanted.double(), rtol=1e-5, atol=0)
            ):
                raise _refused(header, "other rotary frequencies")
