"""A transformers causal LM as a torch module that scores token trees, ready to be traced.

The model's own forward runs, so everything between its layers and its logits is in the graph. Two parts are replaced:
attention, which takes the past and the mask from the module's inputs, and experts, whose own code depends on which of
them are hit and cannot be traced.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.moe import ExpertsInterface

from unspool.backends.openvino.layers import BLOCK_MAX
from unspool.errors import UnsupportedError

_NAME = "unspool_tree"
_EXPERTS = "unspool_tiled"

# Block maxima of logits (``contracts.Scores``) cover runs of this many tokens, or of the largest divisor that this
# number shares with the vocabulary size; shorter runs would save nothing.
_RUN, _LEAST_RUN = 128, 16

OUTPUTS = ("logits", "new_keys", "new_values", "hidden", BLOCK_MAX)
"""Names of a pass's outputs; not all models have the last."""


class TreeScorer(nn.Module):  # type: ignore[misc]
    """One pass over a tree.

    Takes ids [1, n], positions [1, n], rows [m], a mask for each kind of layer [groups x n, slots + n], and the past's
    keys and values [layers, heads, slots, size]. Returns ``OUTPUTS``: those of the rows, and keys and values of all n
    nodes. Changes the model permanently.

    Args:
        model: in float32 and evaluation mode.
        masks: names of the masks: ``"mask"`` and, if layers have a window, ``"mask_sliding"``.
    """

    def __init__(self, model: Any, masks: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.masks = masks
        self.layers = int(model.config.get_text_config().num_hidden_layers)
        self.architecture = str(model.config.get_text_config().model_type)
        self._given: dict[str, Any] = {}
        self._new: dict[int, tuple[Any, Any]] = {}
        self._rows: Any = None
        self._hidden: Any = None
        AttentionInterface.register(_NAME, self._attend)
        ExpertsInterface.register(_EXPERTS, _tiled_experts)
        try:
            model.set_attn_implementation(_NAME)
            if getattr(model.config.get_text_config(), "_experts_implementation", None) is not None:
                model.set_experts_implementation(_EXPERTS)
        except (ValueError, AttributeError) as error:
            raise UnsupportedError(
                f"{self.architecture} does its attention outside transformers' attention interface, so the openvino "
                "backend cannot give it a tree"
            ) from error
        model.get_output_embeddings().register_forward_pre_hook(self._select)

    def shapes(self) -> tuple[int, int, int, int]:
        """Key/value heads, query heads per key/value head, and the sizes of a key and a value, found by a pass.

        Raises:
            UnsupportedError: if they differ between layers, or a layer has none.
        """
        self._given = {}
        self._queries: set[int] = set()
        with torch.inference_mode():
            self._run(torch.tensor([[1, 2]]), torch.tensor([[0, 1]]), torch.tensor([0]))
        found = {(keys.shape[1], keys.shape[3], values.shape[3] - 1) for keys, values in self._new.values()}
        if len(found) > 1 or len(self._queries) > 1:
            raise UnsupportedError(
                f"{self.architecture}: its layers have keys of different shapes, which the openvino backend cannot keep"
            )
        heads, keys, values = found.pop()
        return heads, self._queries.pop() // heads, keys, values

    def forward(self, ids: Any, positions: Any, rows: Any, *rest: Any) -> tuple[Any, ...]:
        *masks, past_keys, past_values = rest
        self._given = dict(zip(self.masks, masks, strict=True))
        self._given["past"] = list(zip(past_keys.split(1), past_values.split(1), strict=True))
        logits = self._run(ids, positions, rows)
        new = [self._new[layer] for layer in range(self.layers)]
        results = logits, torch.cat([keys for keys, _ in new]), torch.cat([values for _, values in new]), self._hidden
        run = math.gcd(logits.shape[-1], _RUN)
        return (*results, logits.unflatten(-1, (-1, run)).amax(-1)) if run >= _LEAST_RUN else results

    def scored(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """One pass in torch: from inputs by name to outputs by name."""
        order = ("ids", "positions", "rows", *self.masks, "past_keys", "past_values")
        with torch.inference_mode():
            outputs = self(*(torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in order))
        return {name: output.numpy() for name, output in zip(OUTPUTS, outputs, strict=False)}

    def _run(self, ids: Any, positions: Any, rows: Any) -> Any:
        self._new, self._rows, self._hidden = {}, rows, None
        # A 4-D mask stops transformers from making its own; the attention takes its masks from the module's inputs.
        placeholder = self._given["mask"][None, None] if self._given else torch.zeros(1, 1, 2, 2)
        output = self.model(
            input_ids=ids, position_ids=positions, attention_mask=placeholder, use_cache=False, return_dict=True
        )
        if self._new.keys() != set(range(self.layers)):
            raise UnsupportedError(
                f"{self.architecture} does its attention outside transformers' attention interface, so the openvino "
                "backend cannot give it a tree"
            )
        if self._hidden is None:
            raise UnsupportedError(f"{self.architecture} makes its logits without its output layer")
        return output.logits[0]

    def _select(self, layer: Any, inputs: Any) -> Any:
        """The output layer is the most expensive part of a pass, so it gets only the requested rows."""
        (hidden,) = inputs
        self._hidden = hidden[0].index_select(0, self._rows)
        return (self._hidden[None],)

    def _attend(
        self,
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
        """query [1, heads, n, size]; key, value [1, key/value heads, n, size] of the new nodes.

        Query heads that share a key/value head are laid out as more nodes of it, so that keys and values are not
        repeated; the mask is already repeated to match. Few and simple operations: each one costs time at every change
        of shape.

        The softmax denominator comes from the same product as the weighted values, by a column of ones. A product adds
        slot after slot in the order of the text, and masked slots add exact zeros; a reduction would add in an order
        that depends on a token's place in the pass. So a node's numbers are bit-identical in every tree and at every
        width. With int8 activations nothing less keeps them equal: one flipped rounding grows from layer to layer.
        """
        if extra := [name for name in ("s_aux", "sinks", "position_bias") if others.get(name) is not None]:
            raise UnsupportedError(
                f"{self.architecture}: attention with {extra[0]} is not supported by the openvino backend"
            )
        layer = module.layer_idx
        if layer in self._new:
            raise UnsupportedError(
                f"{self.architecture} attends more than once in a layer, which the openvino backend cannot keep apart"
            )
        value = torch.cat([value, torch.ones_like(value[..., :1])], -1)
        self._new[layer] = (key, value)
        heads, size = query.shape[1], query.shape[3]
        keys, values = key, value
        if self._given:
            past_key, past_value = self._given["past"][layer]
            keys, values = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
        else:
            self._queries.add(heads)
        scale = size**-0.5 if scaling is None else scaling
        # Scaled before the product: OpenVINO would scale the many keys instead of the products.
        scores = (query * scale).reshape(1, key.shape[1], -1, size) @ keys.transpose(2, 3)
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        if self._given:
            scores = scores + self._given["mask_sliding" if sliding_window else "mask"]
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        out, total = (weights @ values).split([value.shape[3] - 1, 1], -1)
        out = out / total
        return out.reshape(1, heads, -1, value.shape[3] - 1).transpose(1, 2), None


def _tiled_experts(experts: Any, hidden: Any, chosen: Any, weights: Any) -> Any:
    """All experts on all tokens, weighted; hidden [tokens, size], chosen and weights [tokens, experts per token].

    The form that OpenVINO turns into products of only the chosen experts (as in transformers' exporter for OpenVINO).
    """
    count, size = hidden.shape[0], hidden.shape[1]

    def product(inputs: Any, name: str) -> Any:
        matrices = getattr(experts, name)
        result = torch.bmm(inputs, matrices if experts.is_transposed else matrices.transpose(1, 2))
        return result + getattr(experts, f"{name}_bias")[:, None] if experts.has_bias else result

    inputs = hidden.repeat(experts.num_experts, 1).view(experts.num_experts, count, size)
    inner = (
        experts._apply_gate(product(inputs, "gate_up_proj"))
        if experts.has_gate
        else experts.act_fn(product(inputs, "up_proj"))
    )
    results = product(inner, "down_proj")
    if experts.has_post_expert_norm:
        results = experts.post_expert_norm(results)
    routing = torch.zeros(count, experts.num_experts, dtype=hidden.dtype).scatter(1, chosen, weights.to(hidden.dtype))
    return (results * routing.transpose(0, 1)[..., None]).sum(0)
