"""Turns a causal LM of transformers into an OpenVINO graph that scores token trees.

The keys and values of the past come in as inputs and only those of the new nodes go out, so the cache stays in the
session's own memory: no copy of it in the graph, and commit, rewind and fork are array operations. One attention
function, registered with transformers' ``AttentionInterface``, serves every architecture.

Runs once per model and weight format and is the only part of the OpenVINO backend that imports torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from unspool.errors import UnsupportedError

FORMAT_VERSION = 8
"""Raised whenever the graph's inputs, outputs or weights change; converted models of another version are not used."""

Weights = Literal["int8", "int4", "fp32"]
WEIGHTS: tuple[Weights, ...] = ("int8", "int4", "fp32")

_ATTENTION = "unspool_tree"

# Peaks of logits (``contracts.Scores``) are those of runs of so many tokens, or of the largest divisor that the size of
# the vocabulary shares with it; shorter runs would save nothing.
_RUN, _LEAST_RUN = 128, 16


@dataclass(frozen=True)
class GraphInfo:
    """What the runtime must know of a converted graph; stored beside it as ``unspool.json``.

    Attributes:
        layers, kv_heads, head_dim: shape of the cache.
        groups: query heads per key/value head.
        vocab_size: width of the logits.
        max_length: longest text in tokens.
        sliding_window: positions that sliding-window layers see, or None if the model has no such layers.
        eos_token_ids: ids that end a text.
        weights: weight format.
        activation_group: neighbouring activations that share a scale when OpenVINO multiplies them as int8.
        architecture: transformers' ``model_type``.
    """

    layers: int
    kv_heads: int
    head_dim: int
    groups: int
    vocab_size: int
    max_length: int
    sliding_window: int | None
    eos_token_ids: tuple[int, ...]
    weights: str
    activation_group: int
    architecture: str

    def save(self, directory: Path) -> None:
        (directory / "unspool.json").write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, directory: Path) -> GraphInfo:
        data = json.loads((directory / "unspool.json").read_text())
        data["eos_token_ids"] = tuple(data["eos_token_ids"])
        return cls(**data)


def convert(model: Any, directory: Path, weights: Weights, report: Callable[[str], None]) -> GraphInfo:
    """Write ``openvino_model.xml``/``.bin`` and ``unspool.json`` into ``directory``.

    Args:
        model: a transformers causal LM in float32.
        directory: exists and is empty; making it appear under its final name is the caller's business.
        weights: format of the linear layers' and the embedding's weights.
        report: told in a few words what happens now.

    Raises:
        UnsupportedError: if the architecture's attention is not the standard one.
    """
    import openvino as ov

    from unspool.backends.joined import join_projections  # imports torch, which a start of a converted model spares

    info = _describe(model, weights)
    report("tracing the graph")
    join_projections(model)
    graph = _trace(model, info)
    if weights != "fp32":
        report(f"compressing the weights to {weights}")
        graph = _compress(graph, weights)
    report("saving")
    ov.save_model(graph, directory / "openvino_model.xml", compress_to_fp16=False)
    info.save(directory)
    return info


def _describe(model: Any, weights: Weights) -> GraphInfo:
    config = model.config.get_text_config()
    for name in ("num_hidden_layers", "num_attention_heads", "hidden_size", "max_position_embeddings"):
        if getattr(config, name, None) is None:
            raise UnsupportedError(f"{config.model_type}: not a decoder the openvino backend knows (no {name})")
    window = getattr(config, "sliding_window", None)
    # Without layer types (Mistral) a window holds for all layers.
    default = "sliding_attention" if window else "full_attention"
    layer_types = getattr(config, "layer_types", None) or [default] * config.num_hidden_layers
    if unknown := set(layer_types) - {"full_attention", "sliding_attention"}:
        raise UnsupportedError(
            f"{config.model_type} has {', '.join(sorted(unknown))} layers, which the openvino backend cannot score; "
            "try --backend transformers"
        )
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return GraphInfo(
        layers=config.num_hidden_layers,
        kv_heads=kv_heads,
        groups=config.num_attention_heads // kv_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocab_size=model.get_output_embeddings().weight.shape[0],
        max_length=config.max_position_embeddings,
        sliding_window=window if "sliding_attention" in layer_types else None,
        eos_token_ids=eos_token_ids(model),
        weights=weights,
        activation_group=_activation_group(model, weights),
        architecture=config.model_type,
    )


def _activation_group(model: Any, weights: Weights) -> int:
    """The largest group that divides every linear layer's input: fewer scales are faster. int4 weights share 64."""
    import torch

    widths = {layer.in_features for layer in model.modules() if isinstance(layer, torch.nn.Linear)}
    sizes = (64, 32) if weights == "int4" else (128, 64, 32)
    return next((size for size in sizes if all(width % size == 0 for width in widths)), 32)


def eos_token_ids(model: Any) -> tuple[int, ...]:
    """The ids that end a text, from a torch model's generation configuration, else its configuration."""
    eos = getattr(model.generation_config, "eos_token_id", None)
    if eos is None:
        eos = model.config.get_text_config().eos_token_id
    return tuple(eos) if isinstance(eos, list | tuple) else () if eos is None else (eos,)


def _trace(model: Any, info: GraphInfo) -> Any:
    import openvino as ov
    import torch
    from transformers import AttentionInterface

    io: dict[str, Any] = {}  # how the wrapper hands masks and the past to the attention, and gets new entries back

    def attend(
        module: Any,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        **others: Any,
    ) -> tuple[Any, None]:
        """query [1,H,n,D]; key, value [1,KV,n,D] of the new nodes; the past comes from io.

        Query heads that share a key/value head are laid out as more nodes of it, so that keys and values are not
        repeated; the mask comes in repeated to match. Few and plain operations: each one costs time at every change of
        shape.

        The sum under the softmax comes from the same product as the weighted values, by their column of ones. A
        product adds slot after slot, whose order is that of the text, and masked slots add exact zeros; a reduction
        would add in an order that depends on where in the pass a token stands. So a node's numbers are the same to the
        last bit in every tree and at every width, which with int8 activations is what makes them equal at all: one
        flipped rounding grows from layer to layer.
        """
        if extra := [name for name in ("s_aux", "sinks", "position_bias") if others.get(name) is not None]:
            raise UnsupportedError(f"{info.architecture}: attention with {extra[0]} is not supported by openvino")
        value = torch.cat([value, torch.ones_like(value[..., :1])], -1)
        io["new"][module.layer_idx] = (key, value)
        past_key, past_value = io["past"][module.layer_idx]
        keys, values = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
        heads, dim = query.shape[1], query.shape[3]
        scale = dim**-0.5 if scaling is None else scaling
        # Scaled before the product: OpenVINO would scale the keys, which are many, and not the products.
        scores = (query * scale).reshape(1, key.shape[1], -1, dim) @ keys.transpose(2, 3)
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        scores = scores + io["mask_sliding" if sliding_window else "mask"]
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        out, total = (weights @ values).split([dim, 1], -1)
        out = out / total
        return out.reshape(1, heads, -1, dim).transpose(1, 2), None

    AttentionInterface.register(_ATTENTION, attend)
    model.set_attn_implementation(_ATTENTION)
    head = model.get_output_embeddings()
    base = model.get_decoder()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    layers = info.layers
    run = math.gcd(info.vocab_size, _RUN)
    masks = ["mask", "mask_sliding"] if info.sliding_window else ["mask"]

    class Wrapper(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.base, self.head = base, head

        def forward(self, ids: Any, positions: Any, rows: Any, *rest: Any) -> tuple[Any, ...]:
            *_, past_keys, past_values = rest
            io.update(zip(masks, rest, strict=False))
            io["past"] = list(zip(past_keys.split(1), past_values.split(1), strict=True))
            io["new"] = [None] * layers
            # A 4-D mask stops transformers from making its own; the attention above takes its masks from io.
            placeholder = rest[0][None, None]
            hidden = self.base(
                input_ids=ids, position_ids=positions, attention_mask=placeholder, use_cache=False
            ).last_hidden_state
            if any(entry is None for entry in io["new"]):
                raise UnsupportedError(
                    f"{info.architecture} does its attention outside transformers' attention interface, so the "
                    "openvino backend cannot give it a tree; use another model"
                )
            hidden = hidden[0].index_select(0, rows)
            logits = self.head(hidden)
            if cap is not None:
                logits = torch.tanh(logits / cap) * cap
            keys, values = zip(*io["new"], strict=True)
            results = logits, torch.cat(keys), torch.cat(values), hidden
            return (*results, logits.unflatten(-1, (-1, run)).amax(-1)) if run >= _LEAST_RUN else results

    n, capacity = 3, 7
    example = (
        torch.arange(n)[None],
        torch.arange(capacity, capacity + n)[None],
        torch.arange(n),
        *[torch.zeros(info.groups * n, capacity + n) for _ in masks],
        *[torch.zeros(layers, info.kv_heads, capacity, info.head_dim + ones) for ones in (0, 1)],
    )
    try:
        with torch.inference_mode():
            graph = ov.convert_model(Wrapper(), example_input=example)
    except UnsupportedError:
        raise
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        reason = str(error).strip().splitlines()[0]
        raise UnsupportedError(
            f"OpenVINO cannot trace {info.architecture} ({reason}); try --backend transformers"
        ) from error
    names = ["ids", "positions", "rows", *masks, "past_keys", "past_values"]
    shapes: list[list[int]] = [[1, -1], [1, -1], [-1], *[[-1, -1]] * len(masks)]
    shapes += [[layers, info.kv_heads, -1, info.head_dim + ones] for ones in (0, 1)]
    graph.reshape(dict(zip(graph.inputs, shapes, strict=True)))
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(graph.outputs, ("logits", "new_keys", "new_values", "hidden", "peaks"), strict=False):
        port.get_tensor().set_names({name})
    return graph


def _compress(graph: Any, weights: Weights) -> Any:
    import logging

    import nncf

    logging.getLogger("nncf").setLevel(logging.WARNING)
    if weights == "int8":
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)
    # All layers: reading the output layer is a quarter of a small model's step.
    return nncf.compress_weights(
        graph, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=64, ratio=1.0, all_layers=True
    )
