"""Masked-diffusion models on torch: any transformers causal LM, run without its causal mask.

A masked-diffusion LM is a decoder-only transformer in which every position sees every other one, so it needs no model
class: an additive mask of zeros makes any causal checkpoint bidirectional. Each session keeps the keys and values of
its canvas; a pass overwrites those of the positions that it feeds, and attends to all of them. A batch is one forward,
padded to the longest canvas and to the largest number of fed positions.

Models that kept the shift of the autoregressive model they came from (Dream) predict position i in row i - 1. A pass
then also feeds the position before the first, so that every requested position has its row. (The released code instead
decodes the first position of a block from the pass over the whole canvas.)

Not supported: sliding windows, rotary frequencies that change with the length, block-causal models.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import transformers
from transformers import DynamicCache, PreTrainedModel

from unspool.engine.canvas import CanvasPass, CanvasScores, CanvasSession
from unspool.errors import UnspoolError, UnsupportedError

Entries = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer and one canvas, each [heads, length, size]."""


class TransformersDenoiser:
    """A ``Denoiser`` that shares the weights of a ``PreTrainedModel``.

    Args:
        model: in evaluation mode, on its device, with eager or sdpa attention.
        mask_id: the mask token.
        eos_token_id: the token that ends a text and fills the canvas after it.
        shift: 1 if row i - 1 predicts position i, as in Dream; 0 if row i does, as in LLaDA.

    Raises:
        UnspoolError: if the mask is not a token of the model, or the model is in training mode.
        UnsupportedError: if the model cannot run without a causal mask.
    """

    def __init__(
        self, model: PreTrainedModel, mask_id: int | None, eos_token_id: int | None = None, shift: int = 0
    ) -> None:
        config = model.config.get_text_config(decoder=True)
        parameters = inspect.signature(model.forward).parameters
        vocab_size = int(config.vocab_size)
        if mask_id is None or not 0 <= mask_id < vocab_size:
            raise UnspoolError(
                f"a masked-diffusion model needs the id of its mask, 0 to {vocab_size - 1}, not {mask_id}; give it, or "
                "use a model that was trained with one"
            )
        if shift not in (0, 1):
            raise UnspoolError(f"shift must be 0 (LLaDA) or 1 (Dream), not {shift}")
        if model.training:
            raise UnspoolError("the model is in training mode, where dropout is random; call model.eval() first")
        if set(getattr(config, "layer_types", None) or ()) - {"full_attention"} or model._is_stateful:
            raise UnsupportedError(
                f"{type(model).__name__} has layers that cannot see a whole canvas; use another model"
            )
        if "position_ids" not in parameters or not model.is_backend_compatible():
            raise UnsupportedError(
                f"the attention of {type(model).__name__} bypasses transformers' interface; use another model"
            )
        self.model = model
        self.mask_id = mask_id
        self.eos_token_id = eos_token_id
        self.shift = shift
        self.vocab_size = vocab_size
        self.max_length = int(config.max_position_embeddings)
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"  # renamed in transformers 5.24

    @property
    def settings(self) -> dict[str, str]:
        return {
            "backend": "transformers",
            "weights": str(self.model.dtype).removeprefix("torch."),
            "device": str(self.model.device),
            "threads": str(torch.get_num_threads()),
            "torch": str(torch.__version__),
            "transformers": str(transformers.__version__),
        }

    def open(self) -> TorchCanvasSession:
        """A session without keys and values: its first pass must feed the whole canvas."""
        return TorchCanvasSession(self)

    def score_many(self, sessions: Sequence[CanvasSession], fed: Sequence[CanvasPass]) -> list[CanvasScores]:
        """One forward for all canvases. Its sums are grouped differently than for one, so last bits differ."""
        begin = time.perf_counter()
        own = cast("Sequence[TorchCanvasSession]", sessions)
        spans = [self._span(session, one) for session, one in zip(own, fed, strict=True)]
        if not spans:
            return []
        width = max(stop - start for start, stop in spans)
        length = max(len(one.tokens) for one in fed)
        ids = np.zeros((len(fed), width), dtype=np.int64)
        positions = np.zeros((len(fed), width), dtype=np.int64)
        hidden = np.ones((len(fed), 1, width, length), dtype=np.bool_)
        for i, (one, (start, stop)) in enumerate(zip(fed, spans, strict=True)):
            ids[i, : stop - start] = one.tokens[start:stop]
            positions[i, : stop - start] = np.arange(start, stop)
            # Padded rows also see the canvas, so that their softmax is defined; their result is not used.
            hidden[i, :, :, : len(one.tokens)] = False
        mask = torch.zeros(hidden.shape, dtype=self.model.dtype)
        mask.masked_fill_(torch.from_numpy(hidden), torch.finfo(self.model.dtype).min)
        device = self.model.device
        with torch.no_grad():
            output = self.model(
                input_ids=torch.from_numpy(ids).to(device),
                position_ids=torch.from_numpy(positions).to(device),
                attention_mask=mask.to(device),
                use_cache=True,
                return_dict=True,
                **{self._cache_name: _PassCache(own, spans, length)},
            )
        logits = output.logits if output.logits.dtype == torch.float64 else output.logits.float()
        rows = logits.cpu().numpy()
        ms = (time.perf_counter() - begin) * 1000 / len(own)
        scores = []
        for row, one, (start, _) in zip(rows, fed, spans, strict=True):
            wanted = np.arange(one.start, one.stop) - self.shift
            scores.append(CanvasScores(one.start, row[np.maximum(wanted, 0) - start], ms))
        return scores

    def _span(self, session: TorchCanvasSession, fed: CanvasPass) -> tuple[int, int]:
        """The fed positions, with the one before them if rows are shifted."""
        length = len(fed.tokens)
        if not 0 <= fed.start < fed.stop <= length:
            raise ValueError(f"cannot feed positions {fed.start} to {fed.stop} of a canvas of {length}")
        if length > self.max_length:
            raise UnspoolError(f"the canvas exceeds the model's {self.max_length} positions; shorten it")
        if session.length != length:
            if (fed.start, fed.stop) != (0, length):
                raise ValueError("the first pass over a canvas must feed all of it")
            session.length, session.kept = length, {}
        return max(0, fed.start - self.shift), fed.stop


class TorchCanvasSession:
    """One canvas.

    Attributes:
        length: of the canvas whose keys and values are stored; 0 before the first pass.
        kept: by layer, keys and values of all positions, each from when it was last fed.
    """

    def __init__(self, owner: TransformersDenoiser) -> None:
        self._owner = owner
        self.length = 0
        self.kept: dict[int, Entries] = {}

    def score(self, fed: CanvasPass) -> CanvasScores:
        """Logits float32, or float64 for a float64 model; see ``CanvasSession.score``."""
        return self._owner.score_many([self], [fed])[0]

    def close(self) -> None:
        self.length = 0
        self.kept = {}


class _PassCache(DynamicCache):  # type: ignore[misc]
    """The cache passed to the model: it stores fed positions and returns whole canvases."""

    def __init__(self, sessions: Sequence[TorchCanvasSession], spans: Sequence[tuple[int, int]], longest: int) -> None:
        super().__init__()
        self._sessions = sessions
        self._spans = spans
        self._longest = longest

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> Entries:
        """Keys and values [rows, heads, longest canvas, size] of one layer."""
        joined = [self._joined(states, layer_idx, part) for part, states in enumerate((key_states, value_states))]
        for i, session in enumerate(self._sessions):
            session.kept[layer_idx] = joined[0][i, :, : session.length], joined[1][i, :, : session.length]
        return joined[0], joined[1]

    def _joined(self, states: torch.Tensor, layer: int, part: int) -> torch.Tensor:
        rows, heads, _, size = states.shape
        joined = states.new_zeros((rows, heads, self._longest, size))
        for i, (session, (start, stop)) in enumerate(zip(self._sessions, self._spans, strict=True)):
            if layer in session.kept:
                joined[i, :, : session.length] = session.kept[layer][part]
            joined[i, :, start:stop] = states[i, :, : stop - start]
        return joined

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """0: positions are passed explicitly."""
        return 0
