"""The torch backend: token trees on any transformers causal LM whose attention takes a 4-D mask.

The reference for other backends, and the backend for GPUs and for methods that need hidden states. A pass over any
number of sequences is one forward with explicit position ids (committed length + depth) and an additive mask. Rows are
padded to the longest text and to the largest tree; the known lengths, never a token id, identify padding.
Sliding-window layers get a separate mask, whose window counts positions. Every layer keeps its whole cache, windowed
ones too: a cache cut to the window could not be rewound. Not supported: recurrent state, encoder-decoders, and
attention that bypasses transformers' attention interface (for example ALiBi models) or is neither eager nor sdpa. Cache
entries can be moved if keys are rotated (``rotary``); otherwise the first attempt raises an error.

CUDA devices are selected by ``device``; untested here.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import PreTrainedModel

from unspool.backends.branching import SLIDING, max_length, windows
from unspool.backends.openvino import rotary
from unspool.backends.openvino.conversion_check import TextCheck, one_line, read_by_output_layer, refuse_difference
from unspool.backends.torch.cache import PassCache, RowCache
from unspool.engine.contracts import Ability, Scores, Session
from unspool.engine.taps import OUTPUT, Hidden, Taps
from unspool.engine.taps import check as check_taps
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError, UnsupportedError


class TransformersModel:
    """A transformers model that opens sessions. It shares the weights of the ``PreTrainedModel``."""

    def __init__(self, model: PreTrainedModel, *, name: str) -> None:
        self.model = model
        with _advised():
            self.windows = windows(model)
        self._name = name
        self._config = model.config.get_text_config(decoder=True)
        self._max_length = max_length(model)
        _check_attention(model)
        parameters = inspect.signature(model.forward).parameters
        self.keeps_logits = "logits_to_keep" in parameters
        self.cache_name = "cache" if "cache" in parameters else "past_key_values"  # renamed in transformers 5.24
        # One pass over one token: with padded embeddings the logits can be wider than config.vocab_size.
        if model.is_backend_compatible() and SLIDING not in self.windows:
            self._vocab_size = int(self.open().score(TokenTree.chain([0])).logits.shape[1])
        else:
            with _advised():
                self._vocab_size = self._compare()

    def _compare(self) -> int:
        """Compare a tree with the model's own forward. Returns the width of the logits.

        Only if transformers does not declare that all attention goes through one interface (it may ignore a 4-D mask,
        or add terms that depend on slots), or if the configuration sets a window, which the model may ignore. For other
        models it would slow down loading by some passes; the experiment ``architectures`` compares one of each kind.
        """
        name, session = type(self.model).__name__, self.open(Taps())
        reference = TextCheck(self.model, self._max_length, self.windows.get(SLIDING))
        before, self.windows = self.windows, {kind: w and reference.window for kind, w in self.windows.items()}
        try:
            refuse_difference(reference.of_session(session), "a token tree", name, self.model.dtype)
        except UnsupportedError:
            raise
        except Exception as error:  # the model's own code, which may raise anything
            raise UnsupportedError(
                f"{name} cannot score token trees: its attention does not go through transformers' attention interface "
                f"({one_line(error)})"
            ) from error
        finally:
            self.windows = before
        return reference.vocab_size

    @classmethod
    def from_pretrained_model(cls, model: PreTrainedModel) -> TransformersModel:
        """Wrap a loaded model without changing it: device, dtype and attention are the caller's choice.

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
        attention = {Ability.ATTENTION_MAPS} if self._config._attn_implementation == "eager" else set()
        return frozenset({Ability.HIDDEN_STATES, Ability.CACHE_EDIT, *attention})

    @property
    def layers(self) -> int:
        return int(self._config.num_hidden_layers)

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

    def open(self, taps: Taps | None = None) -> TransformersSession:
        """An empty session. Attention can be read if the model was loaded with ``attn_implementation="eager"``.

        Raises:
            UnsupportedError: if the model does not have these taps.
            UnspoolError: if the model is in training mode.
        """
        check_taps(self, taps, "this request")
        if self.model.training:
            raise UnspoolError("the model is in training mode, where dropout is random; call model.eval() first")
        return TransformersSession(self, RowCache(), taps)

    def score_many(
        self,
        sessions: Sequence[Session],
        trees: Sequence[TokenTree],
        rows: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Scores]:
        """One forward for all sessions. Its sums are grouped differently than for one row, so last bits differ."""
        start = time.perf_counter()
        if not len(sessions) == len(trees) == len(trees if rows is None else rows):
            raise ValueError("score_many needs one tree and one list of rows per session")
        if not sessions:
            return []
        own = cast("Sequence[TransformersSession]", sessions)
        picked = [_picked(tree, rows[i] if rows else None) for i, tree in enumerate(trees)]
        for session, tree in zip(own, trees, strict=True):
            if session.length + int(tree.depths.max()) >= self._max_length:
                raise UnspoolError(f"the text exceeds the model's context of {self._max_length} tokens; shorten it")
        for session in own:
            session.scored = None
        with torch.no_grad():
            results = self._forward(own, trees, picked)
        for session, tree in zip(own, trees, strict=True):
            session.scored = tree
        ms = (time.perf_counter() - start) * 1000 / len(own)
        return [
            Scores(logits, nodes, ms, hidden, attention=attention)
            for nodes, (logits, hidden, attention) in zip(picked, results, strict=True)
        ]

    def _forward(
        self, sessions: Sequence[TransformersSession], trees: Sequence[TokenTree], picked: Sequence[tuple[int, ...]]
    ) -> list[tuple[NDArray[Any], Hidden | None, Hidden | None]]:
        """Logits of the picked nodes of every row, and hidden states and attention if tapped."""
        device = self.model.device
        lengths = [session.length for session in sessions]
        ids = np.zeros((len(trees), max(map(len, trees))), dtype=np.int64)
        for i, tree in enumerate(trees):
            ids[i, : len(tree)] = tree.tokens
        # The output layer is the most expensive part of a pass: it sees only nodes that some row requests.
        wanted = sorted(set().union(*picked))
        index = torch.tensor(wanted, dtype=torch.long, device=device)
        tapped = [session.taps for session in sessions if session.taps is not None]
        inner = any(layer != OUTPUT for taps in tapped for layer in taps.layers)
        with read_by_output_layer(self.model) as read:
            output = self.model(
                input_ids=torch.from_numpy(ids).to(device),
                position_ids=torch.from_numpy(self.positions(trees, lengths)).to(device),
                attention_mask=self.masks(trees, lengths),
                use_cache=True,
                return_dict=True,
                **{self.cache_name: PassCache([session.cache for session in sessions])},
                **({"logits_to_keep": index} if self.keeps_logits else {}),
                **({"output_hidden_states": True} if inner else {}),
                **({"output_attentions": True} if any(taps.attention for taps in tapped) else {}),
            )
        if inner and len(output.hidden_states or ()) != self.layers + 1:
            raise UnsupportedError(f"{type(self.model).__name__} does not return the states of its layers")
        results: list[tuple[NDArray[Any], Hidden | None, Hidden | None]] = []
        for i, (session, nodes) in enumerate(zip(sessions, picked, strict=True)):
            places = np.searchsorted(wanted, nodes).tolist() if self.keeps_logits else nodes
            hidden = attention = None
            if taps := session.taps:
                at = range(len(trees[i])) if taps.positions == "all" else nodes
                hidden = {
                    layer: _states(*((read[0][i], places) if layer == OUTPUT else (output.hidden_states[layer][i], at)))
                    for layer in taps.layers
                }
                slots = [*range(lengths[i]), *range(max(lengths), max(lengths) + len(trees[i]))]
                attention = {
                    layer: _states(output.attentions[layer][i].transpose(0, 1), at)[:, :, slots]
                    for layer in taps.attention
                }
            results.append((_numpy(output.logits[i], places), hidden, attention or None))
        return results

    def positions(self, trees: Sequence[TokenTree], lengths: Sequence[int]) -> NDArray[np.int64]:
        """Position of every node in its own text, [rows, largest tree]; padding gets its root's, which is valid."""
        positions = np.zeros((len(trees), max(map(len, trees))), dtype=np.int64)
        for i, (tree, length) in enumerate(zip(trees, lengths, strict=True)):
            positions[i] = length
            positions[i, : len(tree)] += tree.depths
        return positions

    def masks(self, trees: Sequence[TokenTree], lengths: Sequence[int]) -> Any:
        """Additive mask [rows, 1, nodes, longest length + nodes], 0 where allowed; see ``PassCache`` for the slots.

        One tensor if all layers share it, which every model accepts; else one per kind of layer.
        """
        width, nodes = max(lengths), max(map(len, trees))
        allowed = np.zeros((len(trees), nodes, width + nodes), dtype=np.bool_)
        # Padding sees itself, so that its softmax is defined. Its result is not used.
        allowed[:, np.arange(nodes), width + np.arange(nodes)] = True
        for row, tree, length in zip(allowed, trees, lengths, strict=True):
            row[: len(tree), :length] = True
            row[: len(tree), width : width + len(tree)] = tree.ancestors
        return self._masks(allowed, self.positions(trees, lengths))

    def _masks(self, allowed: NDArray[np.bool_], positions: NDArray[np.int64]) -> Any:
        built = {kind: self._mask(allowed, positions, window) for kind, window in self.windows.items()}
        return built if len(built) > 1 else next(iter(built.values()))

    def _mask(self, allowed: NDArray[np.bool_], positions: NDArray[np.int64], window: int | None) -> torch.Tensor:
        if window is not None:
            # Committed token i sits in slot i; a node's slot says nothing about its position.
            rows, nodes, slots = allowed.shape
            committed = np.broadcast_to(np.arange(slots - nodes), (rows, slots - nodes))
            allowed = allowed & (positions[:, :, None] - np.hstack([committed, positions])[:, None] < window)
        mask = torch.zeros(allowed.shape, dtype=self.model.dtype)
        mask.masked_fill_(torch.from_numpy(~allowed), torch.finfo(self.model.dtype).min)
        return mask[:, None].to(self.model.device)

    @cached_property
    def frequencies(self) -> list[NDArray[np.float64]]:
        """Frequencies of the rotation of its keys, see ``rotary.frequencies``; measured by one pass on first access."""
        return rotary.frequencies(self._keys_at, self._vocab_size, self._max_length)

    def _keys_at(self, ids: NDArray[np.int64], positions: NDArray[np.int64]) -> list[NDArray[Any]]:
        device, cache = self.model.device, RowCache()
        with torch.no_grad():
            self.model(
                input_ids=torch.from_numpy(ids[None]).to(device),
                position_ids=torch.from_numpy(positions[None]).to(device),
                attention_mask=self._masks(np.eye(len(ids), dtype=np.bool_)[None], positions[None]),
                use_cache=True,
                return_dict=True,
                **{self.cache_name: PassCache([cache])},
            )
        return [cache.new[layer][0].double().cpu().numpy() for layer in sorted(cache.new)]


class TransformersSession:
    """One sequence: the keys and values of its committed tokens, and between ``score`` and ``commit`` those of a tree.

    Attributes:
        cache: its keys and values.
        taps: what scores contain besides logits.
        scored: the last scored tree, or None after a commit or rewind.
    """

    def __init__(self, owner: TransformersModel, cache: RowCache, taps: Taps | None) -> None:
        self.cache = cache
        self.taps = taps
        self.scored: TokenTree | None = None
        self._owner = owner

    @property
    def length(self) -> int:
        return self.cache.length

    @property
    def max_depth(self) -> int:
        return self._owner.max_length - self.length

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        """Logits after each node of ``rows``, float32, or float64 for a float64 model; see ``Session.score``."""
        return self._owner.score_many([self], [tree], [rows])[0]

    def commit(self, path: Sequence[int]) -> None:
        """Keep these nodes of the last scored tree, contiguous after the committed ones; see ``Session.commit``."""
        tree, nodes = self.scored, list(path)
        if tree is None or not nodes or nodes != tree.path(nodes[-1]):
            raise ValueError("commit needs a path from the root of the last scored tree")
        with torch.no_grad():
            self.cache.append(nodes)
        self.scored = None

    def rewind(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens, the last scored tree included."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind to {length}: the session has {self.length} tokens")
        self.cache.length = length
        self.cache.new = {}
        self.scored = None

    def splice(self, source: Session, start: int, stop: int, *, rotate: bool = True) -> None:
        """Copy entries from another session; see ``EditableSession.splice``."""
        other = cast("TransformersSession", source)
        if other is self or not 0 <= start <= stop <= other.length:
            raise ValueError(f"splice needs a range within the {other.length} tokens of the other session")
        if self.length + stop - start > self._owner.max_length:
            raise UnspoolError(f"the text exceeds the model's context of {self._owner.max_length} tokens; shorten it")
        shift = self.length - start if rotate else 0
        angles = [torch.from_numpy(shift * f) for f in self._owner.frequencies] if shift else None
        with torch.no_grad():
            self.cache.splice(other.cache, start, stop, angles)
        self.scored = None

    def fork(self) -> TransformersSession:
        """An independent copy of the committed text, without a scored but uncommitted tree."""
        return TransformersSession(self._owner, self.cache.copy(), self.taps)

    def close(self) -> None:
        self.cache = RowCache()
        self.scored = None


def _picked(tree: TokenTree, rows: Sequence[int] | None) -> tuple[int, ...]:
    picked = tuple(range(len(tree))) if rows is None else tuple(sorted(set(rows)))
    if picked and not 0 <= picked[0] <= picked[-1] < len(tree):
        raise ValueError(f"rows must be nodes of the tree, 0 to {len(tree) - 1}")
    return picked


def _numpy(values: torch.Tensor, rows: Sequence[int]) -> NDArray[Any]:
    """These rows of a tensor; float32, because numpy has no bfloat16, or float64."""
    kept = values.index_select(0, torch.tensor(rows, dtype=torch.long, device=values.device))
    array: NDArray[Any] = (kept if kept.dtype == torch.float64 else kept.float()).cpu().numpy()
    return array


def _states(values: torch.Tensor, rows: Sequence[int]) -> NDArray[np.float32]:
    return _numpy(values, rows).astype(np.float32)


@contextmanager
def _advised() -> Iterator[None]:
    """Appended to errors: no known model runs on the other backend but not on this one (see ``architectures``)."""
    try:
        yield
    except UnsupportedError as error:
        raise UnsupportedError(f"{error}; use another model") from error


def check(model: PreTrainedModel) -> None:
    """Check that this backend can run the model.

    Raises:
        UnsupportedError: with the reason, if it cannot.
    """
    TransformersModel(model, name="")


def _check_attention(model: PreTrainedModel) -> None:
    implementation = model.config.get_text_config(decoder=True)._attn_implementation
    if implementation not in ("eager", "sdpa"):
        raise UnsupportedError(
            f"attention {implementation!r} has no tree masks; load the model with attn_implementation='sdpa' or 'eager'"
        )
