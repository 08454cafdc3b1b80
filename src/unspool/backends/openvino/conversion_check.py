"""Compares a conversion with its source model before anything is kept.

A short text and a tree after it are scored by the model's own forward, as in transformers, and by the conversion: first
the traced torch module, then the graph, both in float32. Must be equal up to rounding: logits and hidden states of
every row with the model's own; all outputs of the graph with those of the traced module.

The text is long enough for a window of ``WINDOW`` positions. If the model's window is longer, both sides use this one
instead: a window is a number in the configuration that only affects the masks. Some tokens at the end of the context
reveal rotary frequencies that change with the position, and learned positions.

Differences are relative to the largest deviation of the expected values from their mean. The experiment
``architectures`` finds at most 5e-6 with random weights if a conversion is correct, and at least 0.4 if it is wrong
(windows that a tree ignores, positions that a graph treats as constants).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from unspool.backends.openvino.layers import BLOCK_MAX
from unspool.backends.openvino.sections import Sections
from unspool.engine.contracts import Session
from unspool.engine.taps import OUTPUT, Taps
from unspool.engine.tree import TokenTree
from unspool.errors import UnsupportedError

if TYPE_CHECKING:
    from unspool.backends.openvino.convert import GraphInfo
    from unspool.backends.openvino.model import Entries, OpenVINOModel

BOUND = 1e-3
"""Relative to the largest deviation of the expected values from their mean."""

_ROUNDINGS = 32
"""Tolerance for formats of fewer bits, in units of one number's rounding."""

TEXT, WINDOW, FAR = 40, 16, 12

_PARENTS = (-1, 0, 0, 2, 1, 3, 5, 3)
"""The tree: leaves 4, 6 and 7; nodes 5 and 7 are siblings."""
_LEAVES = (4, 6, 7)
_DEPTH = 5

Infer = Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[np.float32]]]
"""One pass: from inputs by name to outputs by name."""


@dataclass(frozen=True)
class Compared:
    """Values that must be equal up to rounding.

    Attributes:
        what: noun for the refusal, such as ``"logits"``.
    """

    what: str
    found: NDArray[np.float32]
    expected: NDArray[np.float32]

    @property
    def difference(self) -> float:
        """The largest difference, relative to the largest deviation of the expected values from their mean; infinite if
        only one side has infinities or NaN."""
        if self.found.shape != self.expected.shape:
            return float("inf")
        finite = np.isfinite(self.expected)
        if not np.array_equal(self.found[~finite], self.expected[~finite]):
            return float("inf")
        found, expected = self.found[finite].astype(np.float64), self.expected[finite].astype(np.float64)
        if not expected.size:
            return 0.0
        largest = float(np.abs(found - expected).max())
        scale = float(np.abs(expected - expected.mean()).max())
        return largest if largest == 0 else largest / scale if scale else float("inf")


class Runner:
    """The part of a model that sessions of the OpenVINO backend need, on top of any function that runs a pass.

    Attributes:
        passes: inputs and outputs by name of all passes so far.
    """

    def __init__(self, info: GraphInfo, infer: Infer) -> None:
        self.info = info
        self.sections = Sections(info.max_length)
        self.max_length = info.max_length
        self.passes: list[tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.float32]]]] = []
        self._infer = infer

    def infer(
        self, cache: Entries, inputs: Mapping[str, NDArray[Any]]
    ) -> tuple[NDArray[np.float32], Entries, NDArray[np.float32], NDArray[np.float32] | None]:
        """See ``OpenVINOModel.infer``."""
        given = {**inputs, "past_keys": cache[0].copy(), "past_values": cache[1].copy()}
        outputs = self._infer(given)
        self.passes.append((given, outputs))
        return (
            outputs["logits"],
            (outputs["new_keys"], outputs["new_values"]),
            outputs["hidden"],
            outputs.get(BLOCK_MAX),
        )

    def move(self) -> None:
        """Does nothing: no huge pages here."""


class Reference(Protocol):
    """The source model's results, and how to compare a conversion with them."""

    @property
    def vocab_size(self) -> int: ...

    def compared(self, info: GraphInfo, runner: Callable[[GraphInfo], Runner]) -> Iterator[Compared]: ...


class TextCheck:
    """A causal model's own results for a short text, a tree after it, and tokens at the end of its context.

    Computed on construction, before the model is changed.

    Attributes:
        window: used for the results; see ``small_window``.
        vocab_size: width of the logits.

    Args:
        max_length: maximum text length in tokens.
        window: of sliding layers, if the model has any.

    Raises:
        UnsupportedError: if the model's own forward fails.
    """

    def __init__(self, model: Any, max_length: int, window: int | None) -> None:
        self.window = min(window, WINDOW) if window else None
        count = min(TEXT, max(1, max_length - _DEPTH))
        ids = spread_ids(model, count + len(_PARENTS))
        self._text, self._tree = ids[:count], TokenTree(tuple(ids[count:]), _PARENTS)
        self._far_start = max(0, max_length - FAR)
        self._far = ids[: min(FAR, max_length)]
        paths = [self._tree.path(leaf) for leaf in _LEAVES]
        with small_window(model, self.window):
            try:
                runs = [own_forward(model, [*self._text, *(ids[count + node] for node in path)]) for path in paths]
                self._expected_far = own_forward(model, self._far, self._far_start)
            except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
                raise UnsupportedError(f"transformers' own forward of this model fails: {one_line(error)}") from error
        self.vocab_size = int(runs[0]["logits"].shape[-1])
        self._expected: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        for name, text in runs[0].items():
            nodes = {
                node: run[name][count + depth]
                for path, run in zip(paths, runs, strict=True)
                for depth, node in enumerate(path)
            }
            self._expected[name] = text[:count], np.stack([nodes[node] for node in range(len(_PARENTS))])

    def compared(self, info: GraphInfo, runner: Callable[[GraphInfo], Runner]) -> Iterator[Compared]:
        """The same text by sessions of the OpenVINO backend, run by ``runner``."""
        from unspool.backends.openvino.model import OpenVINOSession

        model = runner(replace(info, sliding_window=self.window))
        yield from self.of_session(OpenVINOSession(cast("OpenVINOModel", model), Taps()))
        empty = OpenVINOSession(cast("OpenVINOModel", model))
        logits, *_ = model.infer(empty.cache, empty.inputs(TokenTree.chain(self._far), start=self._far_start))
        yield Compared("logits at the end of the context", logits[: len(self._far)], self._expected_far["logits"])

    def of_session(self, session: Session) -> Iterator[Compared]:
        """The text and the tree by an empty session with hidden states, whose layers see ``window`` positions."""
        chain = TokenTree.chain(self._text)
        for part, tree in enumerate((chain, self._tree)):
            scores = session.score(tree)
            for name, found in (("logits", scores.logits), ("hidden states", (scores.hidden or {}).get(OUTPUT))):
                yield Compared(name, cast("NDArray[np.float32]", found), self._expected[name][part])
            if tree is chain:
                session.commit(range(len(self._text)))


def own_forward(model: Any, ids: list[int], start: int | None = None) -> dict[str, NDArray[np.float32]]:
    """Logits and hidden states of each token, by the model's own forward with its own masks and cache.

    Args:
        start: position of the first token; None: chosen by the model.
    """
    with torch.no_grad(), read_by_output_layer(model) as kept:
        positions = None if start is None else torch.arange(start, start + len(ids), device=model.device)[None]
        given = {} if positions is None else {"position_ids": positions}
        logits = model(input_ids=torch.tensor([ids], device=model.device), return_dict=True, **given).logits
    return {"logits": logits[0].float().cpu().numpy(), "hidden states": kept[0][0].float().cpu().numpy()}


@contextmanager
def read_by_output_layer(model: Any) -> Iterator[list[Any]]:
    """The input of the output layer in each pass: hidden states of the rows whose logits are requested.

    The last of ``output_hidden_states`` may differ: it can precede a final transformation, or be several tensors.
    """
    read: list[Any] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda layer, inputs: read.append(inputs[0]))
    try:
        yield read
    finally:
        hook.remove()


def spread_ids(model: Any, count: int) -> list[int]:
    """Ids spread over the vocabulary, without ids that the configuration names. Deterministic for a model."""
    config = model.config.get_text_config()
    special = {value for key, value in config.to_dict().items() if key.endswith("_id") and isinstance(value, int)}
    size = min(int(config.vocab_size), int(model.get_input_embeddings().weight.shape[0]))
    # Golden-section steps fill an interval evenly.
    walk = (int(size * (step * 0.6180339887498949 % 1)) for step in range(1, 8 * count))
    ids = [token for token in walk if token not in special][:count]
    return (ids * count)[:count] if ids else [0] * count


@contextmanager
def small_window(model: Any, window: int | None) -> Iterator[None]:
    """Make the model's own masks with this window, if any."""
    config = model.config.get_text_config()
    before = getattr(config, "sliding_window", None)
    if window:
        config.sliding_window = window
    try:
        yield
    finally:
        if window:
            config.sliding_window = before


def refuse_difference(
    compared: Iterator[Compared], subject: str, architecture: str, dtype: torch.dtype = torch.float32
) -> None:
    """Consume all comparisons; raise for the largest difference if it exceeds rounding.

    Args:
        subject: what was compared with the model, such as ``"the graph"``.
        dtype: of the computation on both sides; the bound grows with its rounding.

    Raises:
        UnsupportedError: names the difference.
    """
    bound = max(BOUND, _ROUNDINGS * torch.finfo(dtype).eps)
    worst = max(compared, key=lambda one: one.difference)
    if not worst.difference < bound:
        raise UnsupportedError(
            f"{subject} of {architecture} does not compute what the model computes: {worst.what} differ by up to "
            f"{worst.difference:.2g} of their range, rounding by less than {bound:.2g}"
        )


def one_line(error: BaseException) -> str:
    """An error of another library in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
