"""The torch backend: token trees on any transformers causal LM whose attention takes a 4-D mask.

The reference that other backends are compared with, and the path for GPUs and for methods that need hidden states.
A pass is one forward with explicit position ids (committed length + depth) and an additive mask. Sliding-window layers
get a mask of their own, in which the window counts positions. Every layer keeps its whole cache, windowed ones too:
a cache cut to the window could not be rewound. Refused: recurrent state, encoder-decoders, attention that bypasses
transformers' attention interface (ALiBi models for instance) or that is neither eager nor sdpa.

CUDA devices are selected by ``device``; untested here.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import DynamicCache, PreTrainedModel

from unspool.engine.contracts import Ability, Scores, Session
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError, UnsupportedError

FULL, SLIDING = "full_attention", "sliding_attention"


class TransformersModel:
    """A transformers model that opens sessions. It shares the weights of the ``PreTrainedModel``."""

    def __init__(self, model: PreTrainedModel, *, name: str) -> None:
        self.model = model
        self.windows = _windows(model)
        self._name = name
        self._config = model.config.get_text_config(decoder=True)
        self._max_length = _max_length(self._config)
        parameters = inspect.signature(model.forward).parameters
        self.keeps_logits = "logits_to_keep" in parameters
        self.cache_name = "cache" if "cache" in parameters else "past_key_values"  # renamed in transformers 5.24
        # One pass over one token, because the logits can be wider than config.vocab_size where embeddings are padded.
        self._vocab_size = int(self.open().score(TokenTree.chain([0])).logits.shape[1])

    @classmethod
    def from_pretrained_model(cls, model: PreTrainedModel) -> TransformersModel:
        """Wrap a model that is already loaded. It stays as it is: device, dtype and attention are the caller's choice.

        Raises:
            UnsupportedError: if it cannot score trees.
            UnspoolError: if it is in training mode.
        """
        return cls(model, name=Path(model.name_or_path or type(model).__name__).name)

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def max_length(self) -> int:
        return self._max_length

    @property
    def widths(self) -> tuple[int, ...]:
        return ()

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({Ability.HIDDEN_STATES})

    @property
    def settings(self) -> dict[str, str]:
        return {
            "backend": "transformers",
            "model": self._name,
            "weights": str(self.model.dtype).removeprefix("torch."),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": str(self.model.device),
            "attention": str(self._config._attn_implementation),
            "threads": str(torch.get_num_threads()),
            "torch": str(torch.__version__),
            "transformers": str(transformers.__version__),
        }

    def open(self, hidden_states: bool = False) -> TransformersSession:
        """An empty session.

        Args:
            hidden_states: whether scores carry the last layer's hidden states, as the output layer reads them.

        Raises:
            UnspoolError: if the model is in training mode.
        """
        if self.model.training:
            raise UnspoolError("the model is in training mode, where dropout is random; call model.eval() first")
        return TransformersSession(self, DynamicCache(), 0, hidden_states)

    def score_many(
        self,
        sessions: Sequence[Session],
        trees: Sequence[TokenTree],
        rows: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Scores]:
        """``score`` of each session on its own tree, one after the other: a padded batch would round differently."""
        each: Iterable[Sequence[int] | None] = [None] * len(trees) if rows is None else rows
        return [session.score(tree, row) for session, tree, row in zip(sessions, trees, each, strict=True)]

    def masks(self, tree: TokenTree, length: int) -> Any:
        """Additive mask [1, 1, nodes, length + nodes] of a tree after ``length`` committed tokens, 0 where allowed.

        One tensor where all layers share it, which every model accepts; else one per kind of layer.
        """
        built = {kind: self._mask(tree, length, window) for kind, window in self.windows.items()}
        return built if len(built) > 1 else next(iter(built.values()))

    def _mask(self, tree: TokenTree, length: int, window: int | None) -> torch.Tensor:
        allowed = np.ones((len(tree), length + len(tree)), dtype=np.bool_)
        allowed[:, length:] = tree.ancestors
        if window is not None:
            # Committed token i sits in slot i; a node's slot says nothing, its position is length + depth.
            positions = length + tree.depths
            allowed &= positions[:, None] - np.concatenate([np.arange(length), positions]) < window
        mask = torch.zeros(allowed.shape, dtype=self.model.dtype)
        mask.masked_fill_(torch.from_numpy(~allowed), torch.finfo(self.model.dtype).min)
        return mask[None, None].to(self.model.device)


class TransformersSession:
    """One sequence: the keys and values of its committed tokens in a ``DynamicCache`` of uncropped layers.

    After ``score`` the cache also holds the nodes of the scored tree, until ``commit`` or the next call drops them.
    """

    def __init__(self, owner: TransformersModel, cache: DynamicCache, length: int, hidden_states: bool) -> None:
        self._owner = owner
        self._cache = cache
        self._length = length
        self._hidden_states = hidden_states
        self._scored: TokenTree | None = None

    @property
    def length(self) -> int:
        return self._length

    @property
    def room(self) -> int:
        return self._owner.max_length - self._length

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        """Logits after each node of ``rows``, float32, or float64 for a float64 model; see ``Session.score``."""
        start = time.perf_counter()
        picked = tuple(range(len(tree))) if rows is None else tuple(sorted(set(rows)))
        if picked and not 0 <= picked[0] <= picked[-1] < len(tree):
            raise ValueError(f"rows must be nodes of the tree, 0 to {len(tree) - 1}")
        if self._length + int(tree.depths.max()) >= self._owner.max_length:
            raise UnspoolError(f"the text exceeds the model's context of {self._owner.max_length} tokens; shorten it")
        self._drop_scored()
        with torch.no_grad():
            logits, hidden = self._forward(tree, list(picked))
        self._scored = tree
        return Scores(logits, picked, (time.perf_counter() - start) * 1000, hidden)

    def _forward(self, tree: TokenTree, picked: list[int]) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
        owner, device = self._owner, self._owner.model.device
        index = torch.tensor(picked, dtype=torch.long, device=device)
        output = owner.model(
            input_ids=torch.tensor([tree.tokens], device=device),
            position_ids=torch.from_numpy(self._length + tree.depths)[None].to(device),
            attention_mask=owner.masks(tree, self._length),
            use_cache=True,
            output_hidden_states=self._hidden_states,
            return_dict=True,
            **{owner.cache_name: self._cache},
            **({"logits_to_keep": index} if owner.keeps_logits else {}),
        )
        logits = output.logits[0] if owner.keeps_logits else output.logits[0].index_select(0, index)
        logits = logits if logits.dtype == torch.float64 else logits.float()  # numpy has no bfloat16
        if not self._hidden_states:
            return logits.cpu().numpy(), None
        hidden = output.hidden_states[-1][0]
        return logits.cpu().numpy(), hidden.index_select(0, index.to(hidden.device)).float().cpu().numpy()

    def commit(self, path: Sequence[int]) -> None:
        """Keep these nodes of the last scored tree, contiguous after the committed ones; see ``Session.commit``."""
        tree, nodes = self._scored, list(path)
        if tree is None or not nodes or nodes != tree.path(nodes[-1]):
            raise ValueError("commit takes a path that starts at the root of the tree that was scored last")
        if nodes != list(range(len(nodes))):
            slots = torch.tensor(nodes) + self._length
            with torch.no_grad():
                for layer in self._cache.layers:
                    for kept in (layer.keys, layer.values):
                        # index_select copies before anything is written, so source and target may overlap.
                        kept[:, :, self._length : self._length + len(nodes)] = kept.index_select(
                            2, slots.to(kept.device)
                        )
        self._length += len(nodes)
        self._drop_scored()

    def rewind(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens, the last scored tree included."""
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot rewind to {length}: the session holds {self._length} tokens")
        self._length = length
        self._drop_scored()

    def fork(self) -> TransformersSession:
        """An independent copy of the committed text; a tree that was scored and not committed is not copied."""
        cache = DynamicCache()
        with torch.no_grad():
            for index, layer in enumerate(self._cache.layers):
                kept = (layer.keys[:, :, : self._length], layer.values[:, :, : self._length])
                cache.update(*kept, index)  # concatenates, so it copies
        return TransformersSession(self._owner, cache, self._length, self._hidden_states)

    def close(self) -> None:
        self._cache = DynamicCache()
        self._length = 0
        self._scored = None

    def _drop_scored(self) -> None:
        self._scored = None
        for layer in self._cache.layers:
            layer.keys = layer.keys[:, :, : self._length]
            layer.values = layer.values[:, :, : self._length]


def _windows(model: PreTrainedModel) -> dict[str, int | None]:
    """Kinds of attention layers of the model, each with its window in positions, None for no window.

    Raises:
        UnsupportedError: if the model cannot score a tree exactly.
    """
    name, config = type(model).__name__, model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if not kinds:  # transformers' own convention: without a list, a window holds for all layers
        kinds = {FULL if window is None else SLIDING}
    parameters = inspect.signature(model.forward).parameters
    refusals = (
        (model.config.is_encoder_decoder, "it is an encoder-decoder"),
        (model._is_stateful, "its state is recurrent and cannot branch"),
        (not kinds <= {FULL, SLIDING}, f"of its layers {sorted(kinds)} only full and sliding attention can branch"),
        ("position_ids" not in parameters, "it takes no position ids"),
        (not model.is_backend_compatible(), "its attention does not go through transformers' attention interface"),
        (SLIDING in kinds and not isinstance(window, int), "its sliding layers have no single window"),
    )
    for refused, reason in refusals:
        if refused:
            raise UnsupportedError(
                f"the transformers backend cannot score trees with {name}: {reason}; use another model"
            )
    if config._attn_implementation not in ("eager", "sdpa"):
        raise UnsupportedError(
            f"attention {config._attn_implementation!r} takes no tree mask; load the model with "
            "attn_implementation='sdpa' or 'eager'"
        )
    return {kind: window if kind == SLIDING else None for kind in sorted(kinds)}


def _max_length(config: Any) -> int:
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None:
        raise UnsupportedError("the model's config has no max_position_embeddings; add it to config.json")
    # These two change all rotary frequencies when the text outgrows the original length, also those of nodes above the
    # one that does so; plain decoding would not have done that yet. Up to that length they are exact.
    rope = getattr(config, "rope_parameters", None) or {}
    for part in (rope, *rope.values()):  # one set of parameters, or one per kind of layer
        if isinstance(part, dict) and part.get("rope_type") in ("longrope", "dynamic"):
            limit = min(limit, part.get("original_max_position_embeddings") or limit)
    return int(limit)
