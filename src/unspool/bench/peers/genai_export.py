"""Exports a model for OpenVINO GenAI with unspool's int8 weights, so that the two engines are comparable.

The graph is that of optimum-intel: inputs are token ids, attention mask and positions; keys and values are state that
``beam_idx`` reorders; attention is one ``scaled_dot_product_attention`` per layer. GenAI recognises this pattern and
replaces the state by its own cache. Weights and compression are those of unspool's conversion.

Standard decoders only: sliding windows and capped scores are refused, since the pattern has no place for them.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from unspool.backends import conversions, prepare
from unspool.backends.openvino.imports import imported
from unspool.errors import UnsupportedError
from unspool.models import ends
from unspool.models.resolve import ModelSource
from unspool.storage import cache as store

_ATTENTION = "unspool_benchmark_genai"
_VERSION = 1  # increased whenever the export changes


def directory(source: ModelSource) -> Path:
    """The directory of a model's export, whether or not it exists."""
    return store.converted_dir() / source.key / f"genai-int8-v{_VERSION}"


def exported(source: ModelSource) -> Path:
    """The directory for ``openvino_genai.LLMPipeline``; made in unspool's cache on first use.

    Raises:
        UnspoolError: if the model cannot be read or is not a standard decoder.
    """

    def make(directory: Path) -> None:
        store.say(f"exporting {source.name} for OpenVINO GenAI, once")
        _export(source, directory)

    return conversions.ensure(source, directory(source).name, make)


def _export(source: ModelSource, directory: Path) -> None:
    from transformers import AutoTokenizer

    ov, openvino_tokenizers = imported("openvino"), imported("openvino_tokenizers")
    model = prepare.load_torch(source)
    path = source.fetch()
    gguf = {"gguf_file": path.name} if source.kind == "gguf" else {}
    where = path.parent if gguf else path
    tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=True, trust_remote_code=False, **gguf)
    tokenizer.save_pretrained(directory)
    model.config.save_pretrained(directory)
    # Greedy only: penalties of the model's own generation configuration would change the text.
    settings = {"do_sample": False, "eos_token_id": list(ends.of_torch(model))}
    (directory / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    ov.save_model(_compress(_trace(model)), directory / "openvino_model.xml", compress_to_fp16=False)
    for graph, name in zip(
        openvino_tokenizers.convert_tokenizer(tokenizer, with_detokenizer=True),
        ("openvino_tokenizer.xml", "openvino_detokenizer.xml"),
        strict=True,
    ):
        ov.save_model(graph, directory / name)


def _compress(graph: Any) -> Any:
    nncf = imported("nncf")
    logging.getLogger("nncf").setLevel(logging.WARNING)
    return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_SYM)


def _trace(model: Any) -> Any:
    import torch
    from transformers import AttentionInterface

    ov, transformations = imported("openvino"), imported("openvino._offline_transformations")
    config = model.config.get_text_config()
    if set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        raise UnsupportedError(
            f"{config.model_type}: the export for OpenVINO GenAI supports only full attention; leave that peer out"
        )
    if getattr(config, "final_logit_softcapping", None) is not None:
        raise UnsupportedError(
            f"{config.model_type}: the export for OpenVINO GenAI does not support capped logits; leave that peer out"
        )
    layers = config.num_hidden_layers
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    io: dict[str, Any] = {}  # passes mask and past from the wrapper to the attention, and the present back

    def attend(
        module: Any, query: Any, key: Any, value: Any, _mask: Any, scaling: float | None = None, **_: Any
    ) -> tuple[Any, None]:
        past_key, past_value = io["past"][module.layer_idx]
        key, value = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
        io["present"][module.layer_idx] = (key, value)
        groups = query.shape[1] // kv_heads

        def repeated(x: Any) -> Any:
            batch, heads, length, width = x.shape
            return x.unsqueeze(2).expand(batch, heads, groups, length, width).reshape(batch, -1, length, width)

        out = torch.nn.functional.scaled_dot_product_attention(
            query, repeated(key), repeated(value), attn_mask=io["mask"], scale=scaling
        )
        return out.transpose(1, 2), None

    AttentionInterface.register(_ATTENTION, attend)
    model.set_attn_implementation(_ATTENTION)
    base, head = model.get_decoder(), model.get_output_embeddings()

    class Wrapper(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.base, self.head = base, head

        def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, beam_idx: Any, *past: Any) -> Any:
            n, total = input_ids.shape[1], attention_mask.shape[1]
            slots = torch.arange(total)
            causal = slots[None] <= slots[total - n :, None]
            io["mask"] = causal[None, None] & attention_mask[:, None, None].bool()
            reordered = [entry.index_select(0, beam_idx) for entry in past]
            io["past"] = list(zip(reordered[::2], reordered[1::2], strict=True))
            io["present"] = [None] * layers
            hidden = self.base(
                input_ids=input_ids, position_ids=position_ids, attention_mask=io["mask"], use_cache=False
            ).last_hidden_state
            return (self.head(hidden), *[entry for pair in io["present"] for entry in pair])

    batch, n, past = 2, 3, 4
    example = (
        torch.ones(batch, n, dtype=torch.long),
        torch.ones(batch, past + n, dtype=torch.long),
        torch.arange(past, past + n)[None].expand(batch, n),
        torch.arange(batch, dtype=torch.int32),
        *[torch.zeros(batch, kv_heads, past, dim) for _ in range(2 * layers)],
    )
    with torch.inference_mode():
        graph = ov.convert_model(Wrapper(), example_input=example)
    names = ["input_ids", "attention_mask", "position_ids", "beam_idx"]
    shapes: list[list[int]] = [[-1, -1], [-1, -1], [-1, -1], [-1]]
    states = [f"past.{i}" for i in range(2 * layers)]
    presents = [f"present.{i}" for i in range(2 * layers)]
    graph.reshape(dict(zip(graph.inputs, shapes + [[-1, kv_heads, -1, dim]] * (2 * layers), strict=True)))
    for port, name in zip(graph.inputs, names + states, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
    for port, name in zip(graph.outputs, ["logits", *presents], strict=True):
        port.get_tensor().set_names({name})
    transformations.apply_make_stateful_transformation(graph, dict(zip(states, presents, strict=True)))
    _start_empty(graph, kv_heads, dim)
    return graph


def _start_empty(graph: Any, kv_heads: int, dim: int) -> None:
    """Give every state its initial value: no positions, for as many sequences as ``input_ids`` has rows."""
    import numpy as np

    ops = imported("openvino.opset13")
    size = ops.shape_of(graph.input("input_ids"), output_type="i64")
    rows = ops.gather(size, ops.constant(np.array([0])), ops.constant(np.array(0)))
    empty = ops.concat([rows, ops.constant(np.array([kv_heads, 0, dim]))], axis=0)
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":
            node.set_arguments([ops.broadcast(ops.constant(np.float32(0)), empty)])
    graph.validate_nodes_and_infer_types()
