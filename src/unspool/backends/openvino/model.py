"""OpenVINO backend, the fast one on CPUs. Scores token trees on graphs made by ``convert``.

The cache of a session is one float32 array that the graph reads in place; its capacity grows in steps, and the unused
end is masked. A pass returns the keys and values of the new nodes, and commit copies those of the accepted path.
Entries can be moved if keys are rotated (``rotary``); otherwise the first attempt raises an error.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
from numpy.typing import NDArray

from unspool.backends.openvino import layers, rotary, specialise_widths
from unspool.backends.openvino.convert import FORMAT_VERSION, GraphInfo
from unspool.backends.openvino.huge_pages import blocks, moved_to_huge_pages, released
from unspool.backends.openvino.imports import imported
from unspool.backends.openvino.sections import STEP, Sections
from unspool.backends.openvino.shapes import SIZES, padded, resized
from unspool.engine.contracts import Ability, Scores, Session
from unspool.engine.cpu import usable_cores
from unspool.engine.taps import OUTPUT, Taps, check
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError

Entries = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Keys [layers, key/value heads, slots, head size], and values, with one more column of ones."""

_MASKED = np.float32(-1e9)

_SEPARATE = (1, 4, 8, 12, 16)
"""Widths that are specialised if width changes are frequent: the root only, and the widths of drafts that are not plain
copies of earlier text."""


_WORTH_MS = 6000.0
"""Time of passes before the weights move into huge pages. The move costs about what it would have saved until then, so
the total is at most twice the cost of the optimal offline choice (ski rental)."""


class OpenVINOModel:
    """A converted model, compiled for this machine's CPU.

    Args:
        directory: contains ``openvino_model.xml`` and ``unspool.json``.
        threads: number of threads; by default the physical cores available to this process.
    """

    def __init__(self, directory: Path, threads: int | None = None) -> None:
        ov = imported("openvino")
        self.info = GraphInfo.load(directory)
        self.sections = Sections(self.info.max_length)
        cores = psutil.cpu_count(logical=False) or 1
        threads = threads or usable_cores()
        if threads < 1:
            raise UnspoolError(f"threads must be at least 1, not {threads}")
        group = str(self.info.activation_group)
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            # bfloat16 is faster on some CPUs, but its logits have 8 bits: whole groups of tokens would tie.
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": group,
            "INFERENCE_NUM_THREADS": str(threads),
            # Pinned threads are a little faster, but start at the first core: with fewer threads than cores, models
            # of several processes would share the first cores and leave others idle.
            "ENABLE_CPU_PINNING": "YES" if threads >= cores else "NO",
        }
        self._ov = ov
        self._separated: frozenset[int] = frozenset()
        self._passes_ms = 0.0
        self._moving: Iterator[None] | None = None
        self._before = blocks()  # memory outside the model
        self._directory, self._properties = directory, properties
        self.settings = {
            "backend": "openvino",
            "openvino": ov.__version__.split("-")[0],
            "graph": str(FORMAT_VERSION),
            "architecture": self.info.architecture,
            "weights": self.info.weights,
            "threads": str(threads),
            "precision": "f32",
            "dynamic_quantization_group_size": group,
        }
        self._tapped: tuple[int, ...] = ()
        self._compile((), ())

    def _compile(self, separate: tuple[int, ...], tapped: tuple[int, ...]) -> None:
        self._request: Any = None  # frees the compiled model, so that two never exist at once
        self._bound: Entries | None = None
        core = self._ov.Core()
        graph = core.read_model(self._directory / "openvino_model.xml")
        self._outputs = len(graph.outputs)
        layers.expose(graph, tapped)
        if separate:
            specialise_widths.separate(graph, separate, len(tapped))
        compiled = core.compile_model(graph, "CPU", self._properties)
        self._peaks = any(layers.BLOCK_MAX in output.get_names() for output in compiled.outputs)
        self._request = compiled.create_infer_request()
        self._tapped = tapped
        # The first pass repacks the weights. It runs here, so that the first request does not wait for it, and the
        # file's pages are freed as soon as they are copied.
        with released(self._directory / "openvino_model.bin"):
            self.open().score(TokenTree.chain([0]))

    def specialise_widths(self) -> None:
        """See ``SpecialisingModel``.

        Also moves the weights into huge pages. Takes about 1 s and 40 MB per width with 24 layers; each used width
        keeps a copy of a cache of less than ``specialise_widths.SLOTS`` slots.
        """
        if not self._separated:
            try:
                self._compile(_SEPARATE, self._tapped)
            except BaseException:
                self._compile((), self._tapped)  # if interrupted, restore the model
                raise
            self._separated = frozenset(_SEPARATE)
            self.warm_up()

    def warm_up(self) -> None:
        """See ``SpecialisingModel``: the weights move into huge pages."""
        self._moving = moved_to_huge_pages(self._before)
        for _ in self._moving:
            pass

    def specialised(self, length: int) -> frozenset[int]:
        """See ``SpecialisingModel``: none if the cache has ``specialise_widths.SLOTS`` slots or more."""
        return self._separated if self.sections.slots[length] < specialise_widths.SLOTS else frozenset()

    @property
    def vocab_size(self) -> int:
        return self.info.vocab_size

    @property
    def max_length(self) -> int:
        return self.info.max_length

    @property
    def widths(self) -> tuple[int, ...]:
        return SIZES

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({Ability.HIDDEN_STATES, Ability.CACHE_EDIT, Ability.SPECIALISE_WIDTHS})

    @property
    def layers(self) -> int:
        return self.info.layers

    def open(self, taps: Taps | None = None) -> OpenVINOSession:
        """An empty session. Tapping a layer for the first time compiles the graph again, which takes some seconds."""
        check(self, taps, "this request")
        wanted = {layer for layer in taps.layers if layer != OUTPUT} if taps else set()
        if not wanted <= set(self._tapped):
            before, separate = self._tapped, tuple(self._separated)
            try:
                self._compile(separate, tuple(sorted(wanted | set(before))))
            except BaseException:
                self._compile(separate, before)
                raise
        return OpenVINOSession(self, taps)

    @cached_property
    def frequencies(self) -> list[NDArray[np.float64]]:
        """Frequencies of the rotation of its keys, see ``rotary.frequencies``; measured by one pass on first access."""
        return rotary.frequencies(self.open().keys_at, self.vocab_size, self.max_length)

    def score_many(
        self,
        sessions: Sequence[Any],
        trees: Sequence[TokenTree],
        rows: Sequence[Sequence[int] | None] | None = None,
    ) -> list[Scores]:
        """One pass per session, so that every row gets exactly the numbers that it gets alone."""
        results = []
        for i, (session, tree) in enumerate(zip(sessions, trees, strict=True)):
            scores = session.score(tree, rows[i] if rows else None)
            if len(sessions) > 1:
                # The next session's pass overwrites the request's memory.
                scores = session.detach(scores)
            results.append(scores)
        return results

    def move(self) -> None:
        """Move part of the weights into huge pages, if passes have taken long enough."""
        if self._moving is None and self._passes_ms > _WORTH_MS:
            self._moving = moved_to_huge_pages(self._before)
        if self._moving is not None:
            next(self._moving, None)

    def infer(
        self, cache: Entries, inputs: dict[str, NDArray[Any]]
    ) -> tuple[NDArray[np.float32], Entries, NDArray[np.float32], NDArray[np.float32] | None]:
        """One pass; returns views, valid until the next: logits, new keys and values, hidden states, block_max.

        The inputs of tapped layers are in ``states``.
        """
        tensor = self._ov.Tensor
        if cache is not self._bound:
            # Bound once per cache array: the graph reads what commit writes into it.
            for name, entries in zip(("past_keys", "past_values"), cache, strict=True):
                self._request.set_tensor(name, tensor(entries, shared_memory=True))
            self._bound = cache
        for name, value in inputs.items():
            self._request.set_tensor(name, tensor(value))
        start = time.perf_counter()
        self._request.infer()
        self._passes_ms += (time.perf_counter() - start) * 1000
        logits, keys, values, hidden = (
            self._request.get_tensor(name).data for name in ("logits", "new_keys", "new_values", "hidden")
        )
        block_max = self._request.get_tensor(layers.BLOCK_MAX).data if self._peaks else None
        return logits, (keys, values), hidden, block_max

    def states(self, layer: int) -> NDArray[np.float32]:
        """Input of a tapped layer in the last pass, [nodes and padding, hidden size]; a view, valid until the next."""
        states: NDArray[np.float32] = self._request.get_output_tensor(self._outputs + self._tapped.index(layer)).data[0]
        return states


class OpenVINOSession:
    """One sequence.

    Attributes:
        cache: keys and values, with capacity for further tokens.
    """

    def __init__(self, model: OpenVINOModel, taps: Taps | None = None) -> None:
        self._model = model
        self._taps = taps
        info = model.info
        shape = (info.layers, info.kv_heads, STEP)
        self.cache = (
            np.zeros((*shape, info.head_dim), np.float32),
            np.zeros((*shape, info.value_dim + 1), np.float32),
        )
        self._length = 0
        self._new: Entries | None = None

    @property
    def length(self) -> int:
        return self._length

    @property
    def max_depth(self) -> int:
        return self._model.sections.max_depth(self._length)

    @property
    def _capacity(self) -> int:
        return self.cache[0].shape[2]

    def score(self, tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
        self._model.move()
        start = time.perf_counter()
        wanted = tuple(range(len(tree))) if rows is None else tuple(rows)
        logits, self._new, hidden, block_max = self._model.infer(self.cache, self.inputs(tree, rows))
        count = len(wanted)
        states = None
        if taps := self._taps:
            nodes = list(wanted) if taps.positions == "rows" else list(range(len(tree)))
            states = {
                layer: hidden[:count] if layer == OUTPUT else self._model.states(layer)[nodes] for layer in taps.layers
            }
        return Scores(
            logits[:count],
            wanted,
            (time.perf_counter() - start) * 1000,
            states,
            None if block_max is None else block_max[:count],
        )

    def inputs(
        self, tree: TokenTree, rows: Sequence[int] | None = None, start: int | None = None
    ) -> dict[str, NDArray[Any]]:
        """The inputs of a pass over a tree, except the cache.

        Args:
            start: position of the root; by default the one after the committed tokens.
        """
        n = len(tree)
        size = padded(max(n, tree.width))
        ids = np.zeros((1, size), dtype=np.int64)
        ids[0, :n] = tree.tokens
        positions = np.full(size, self._length if start is None else start, dtype=np.int64)
        positions[:n] += tree.depths
        return {
            "ids": ids,
            "positions": positions[None],
            "rows": np.arange(size) if rows is None else np.array(rows, dtype=np.int64),
            **self._masks(tree, positions),
        }

    def detach(self, scores: Scores) -> Scores:
        """Copy results of the last pass that the model's next pass overwrites."""
        assert self._new is not None
        keys, values = self._new
        self._new = keys.copy(), values.copy()
        hidden = None if scores.hidden is None else {layer: part.copy() for layer, part in scores.hidden.items()}
        block_max = None if scores.block_max is None else scores.block_max.copy()
        return Scores(scores.logits.copy(), scores.rows, scores.ms, hidden, block_max)

    def _masks(self, tree: TokenTree, positions: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Additive masks [groups x size, capacity + size]: the cache's slots first, then the tree's nodes."""
        info, size, capacity = self._model.info, len(positions), self._capacity
        allowed = np.zeros((size, capacity + size), dtype=np.bool_)
        slots = self._model.sections.slots[: self._length]
        allowed[:, slots] = True
        tree_part = allowed[:, capacity:]
        np.fill_diagonal(tree_part, True)  # padding sees itself, so that its softmax is defined
        tree_part[: len(tree), : len(tree)] = tree.ancestors
        masks = {"mask": self._additive(allowed)}
        if info.sliding_window:
            at = np.zeros(capacity + size, dtype=np.int64)
            at[slots], at[capacity:] = np.arange(self._length), positions
            masks["mask_sliding"] = self._additive(allowed & (positions[:, None] - at < info.sliding_window))
        return masks

    def _additive(self, allowed: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.tile(np.where(allowed, np.float32(0), _MASKED), (self._model.info.groups, 1))

    def commit(self, path: Sequence[int]) -> None:
        if self._new is None:
            raise RuntimeError("commit needs a tree scored since the last commit or rewind")
        start, self._length = self._length, self._length + len(path)
        self._fit()
        slots = self._model.sections.slots[start : self._length]
        for cache, new in zip(self.cache, self._new, strict=True):
            cache[:, :, slots] = new[:, :, list(path)]
        self._new = None

    def splice(self, source: Session, start: int, stop: int, *, rotate: bool = True) -> None:
        """Copy entries from another session; see ``EditableSession.splice``."""
        other = cast("OpenVINOSession", source)
        if other is self or not 0 <= start <= stop <= other.length:
            raise ValueError(f"splice needs a range within the {other.length} tokens of the other session")
        begin, end = self._length, self._length + stop - start
        if end > self._model.max_length:
            raise UnspoolError(f"the text exceeds the model's context of {self._model.max_length} tokens; shorten it")
        slots = self._model.sections.slots
        keys, values = (entries[:, :, slots[start:stop]] for entries in other.cache)
        if rotate and begin != start:
            for layer, frequencies in zip(keys, self._model.frequencies, strict=True):
                angles = (begin - start) * frequencies
                rotary.turn(layer, np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))
        self._length, self._new = end, None
        self._fit()
        for cache, moved in zip(self.cache, (keys, values), strict=True):
            cache[:, :, slots[begin:end]] = moved

    def keys_at(self, ids: NDArray[np.int64], positions: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        """Keys of each layer, [heads, n, size], of tokens at these positions that see only themselves."""
        padding = (0, padded(len(ids)) - len(ids))
        size = sum(padding) + len(ids)
        allowed = np.hstack([np.zeros((size, self._capacity), np.bool_), np.eye(size, dtype=np.bool_)])
        masks = ("mask", "mask_sliding") if self._model.info.sliding_window else ("mask",)
        inputs: dict[str, NDArray[Any]] = {
            "ids": np.pad(ids, padding)[None],
            "positions": np.pad(positions, padding)[None],
            "rows": np.zeros(0, dtype=np.int64),
            **dict.fromkeys(masks, self._additive(allowed)),
        }
        _, (keys, _), *_ = self._model.infer(self.cache, inputs)
        return list(keys[:, :, : len(ids)].copy())

    def _fit(self) -> None:
        """Give the cache a capacity that suits its section.

        Grown by only an eighth: it then grows rarely, and every pass reads unused slots too.
        """
        least, most = self._model.sections.capacities(self._length)
        old = self._capacity
        if not least <= old <= most:
            capacity = min(most, -(-max(least, old + old // 8) // STEP) * STEP)
            keys, values = self.cache
            self.cache = resized(keys, capacity), resized(values, capacity)

    def rewind(self, length: int) -> None:
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot rewind to {length}; the session has {self._length} tokens")
        self._length = length
        self._new = None
        self._fit()

    def fork(self) -> OpenVINOSession:
        twin = OpenVINOSession(self._model, self._taps)
        keys, values = self.cache
        twin.cache = keys.copy(), values.copy()
        twin._length = self._length
        return twin

    def close(self) -> None:
        keys, values = self.cache
        self.cache = keys[:0].copy(), values[:0].copy()
        self._new = None
