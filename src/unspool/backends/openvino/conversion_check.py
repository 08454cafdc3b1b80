"""Compares a conversion with the model it comes from, before anything is kept.

A short text and a tree behind it go through the model's own forward, as transformers wrote it, and through what the
conversion made of it: first the torch module that is traced, then the graph, both in float32. What must be equal up to
rounding: logits and hidden states of every row with the model's own; all that a graph returns with the traced module.

The text is long enough for a window of ``WINDOW`` positions. Where the model's window is longer, both sides run with
that one in its place: a window is a number in the configuration, of which masks are made and nothing else. Some tokens
at the end of the context show rotary frequencies that change with the position, and positions that are learned.

Differences are measured against the largest deviation of the expected values from their mean. What was found with
random weights, by architecture, is in ``benchmarks/architectures.md``: at most 5e-6 where a conversion is right. What
was wrong differed by 0.4 and more (windows that a tree does not keep, positions that a graph takes for fixed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from unspool.backends.openvino.sections import Sections
from unspool.engine.contracts import Session
from unspool.engine.taps import OUTPUT, Taps
from unspool.engine.tree import TokenTree
from unspool.errors import UnsupportedError

if TYPE_CHECKING:
    from unspool.backends.openvino.convert import GraphInfo
    from unspool.backends.openvino.model import Entries, OpenVINOModel

BOUND = 1e-3
"""Of the largest deviation of the expected values from their mean."""

_ROUNDINGS = 32
"""What is allowed in formats of fewer bits, in roundings of one number."""

TEXT, WINDOW, FAR = 40, 16, 12

_PARENTS = (-1, 0, 0, 2, 1, 3, 5, 3)
"""Of the tree: leaves 4, 6 and 7; nodes 5 and 7 are siblings."""
_LEAVES = (4, 6, 7)
_DEPTH = 5

Infer = Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[np.float32]]]
"""One pass: outputs by name for inputs by name."""


@dataclass(frozen=True)
class Compared:
    """Values that must be equal up to rounding.

    Attributes:
        what: named in the refusal, such as ``"logits"``.
    """

    what: str
    found: NDArray[np.float32]
    expected: NDArray[np.float32]

    @property
    def difference(self) -> float:
        """The largest, as a part of the largest deviation of the expected values from their mean; infinite if one side
        holds what the other does not (infinities, no numbers)."""
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
    """What sessions of the OpenVINO backend need of a model, on top of any function that runs a pass.

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
        return outputs["logits"], (outputs["new_keys"], outputs["new_values"]), outputs["hidden"], outputs.get("peaks")

    def move(self) -> None:
        """Nothing is kept in huge pages here."""


class Reference(Protocol):
    """What the model itself computes, and how to compare a conversion with it."""

    @property
    def vocab_size(self) -> int: ...

    def compared(self, info: GraphInfo, runner: Callable[[GraphInfo], Runner]) -> Iterator[Compared]: ...


class TextCheck:
    """What a causal model itself makes of a short text, a tree behind it, and tokens at the end of its context.

    Taken when this is made, before the model is changed.

    Attributes:
        window: with which it was asked; see ``small_window``.
        vocab_size: width of the logits.

    Args:
        max_length: of a text, in tokens.
        window: of sliding layers, if it has such.

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
        """The same text by sessions of the OpenVINO backend on top of ``runner``."""
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
        start: position of the first token, where it is not the model's own business.
    """
    with torch.no_grad(), read_by_output_layer(model) as kept:
        positions = None if start is None else torch.arange(start, start + len(ids), device=model.device)[None]
        given = {} if positions is None else {"position_ids": positions}
        logits = model(input_ids=torch.tensor([ids], device=model.device), return_dict=True, **given).logits
    return {"logits": logits[0].float().cpu().numpy(), "hidden states": kept[0][0].float().cpu().numpy()}


@contextmanager
def read_by_output_layer(model: Any) -> Iterator[list[Any]]:
    """What the output layer reads in each pass: hidden states, of the rows whose logits are asked for.

    The last of ``output_hidden_states`` need not be that: it may come before a last transformation, or be several.
    """
    read: list[Any] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda layer, inputs: read.append(inputs[0]))
    try:
        yield read
    finally:
        hook.remove()


def spread_ids(model: Any, count: int) -> list[int]:
    """Ids all over the vocabulary, none of which means something to the configuration. The same for the same model."""
    config = model.config.get_text_config()
    special = {value for key, value in config.to_dict().items() if key.endswith("_id") and isinstance(value, int)}
    size = min(int(config.vocab_size), int(model.get_input_embeddings().weight.shape[0]))
    # Steps of the golden section, which fills an interval evenly.
    walk = (int(size * (step * 0.6180339887498949 % 1)) for step in range(1, 8 * count))
    ids = [token for token in walk if token not in special][:count]
    return (ids * count)[:count] if ids else [0] * count


@contextmanager
def small_window(model: Any, window: int | None) -> Iterator[None]:
    """The model's own masks are made with this window, if any."""
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
    """Take all in; raise for the largest difference if it is above rounding.

    Args:
        subject: what was compared with the model, such as ``"the graph"``.
        dtype: that both sides compute in; the bound grows with its rounding.

    Raises:
        UnsupportedError: which names the difference.
    """
    bound = max(BOUND, _ROUNDINGS * torch.finfo(dtype).eps)
    worst = max(compared, key=lambda one: one.difference)
    if not worst.difference < bound:
        raise UnsupportedError(
            f"{subject} of {architecture} does not compute what the model computes: {worst.what} differ by up to "
            f"{worst.difference:.2g} of their range, rounding by less than {bound:.2g}"
        )


def one_line(error: BaseException) -> str:
    """An error of other libraries in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
