"""Convert a causal LM of transformers to an OpenVINO graph that scores token trees.

The keys and values of the past are inputs, and only those of the new nodes are outputs, so the cache stays in the
session's own memory: the graph has no copy of it, and commit, rewind and fork are array operations. One attention
function, registered with transformers' ``AttentionInterface``, serves every architecture.

Runs once per model and weight format and is the only part of the OpenVINO backend that imports torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unspool.backends.openvino.imports import imported
from unspool.errors import UnsupportedError
from unspool.models import ends

if TYPE_CHECKING:
    from unspool.backends.openvino.conversion_check import Reference, Runner

FORMAT_VERSION = 9
"""Increased whenever the graph's inputs, outputs or weights change; conversions of other versions are not used."""

Weights = Literal["int8", "int4", "fp32"]
WEIGHTS: tuple[Weights, ...] = ("int8", "int4", "fp32")
_INT4_GROUP = 64


@dataclass(frozen=True)
class GraphInfo:
    """The runtime's description of a converted graph; stored beside it as ``unspool.json``.

    Attributes:
        layers, kv_heads, head_dim, value_dim: shape of the cache, with the sizes of a key and of a value.
        groups: query heads per key/value head.
        vocab_size: width of the logits.
        max_length: maximum length of a text in tokens.
        sliding_window: positions that sliding-window layers see, or None if the model has no such layers.
        eos_token_ids: ids that end a text.
        weights: weight format.
        activation_group: neighbouring activations that share a scale when OpenVINO multiplies them as int8.
        architecture: transformers' ``model_type``.
    """

    layers: int
    kv_heads: int
    head_dim: int
    value_dim: int
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


def convert(
    model: Any,
    directory: Path,
    weights: Weights,
    report: Callable[[str], None],
    reference: Callable[[Any, int, int | None], Reference] | None = None,
) -> GraphInfo:
    """Write ``openvino_model.xml``/``.bin`` and ``unspool.json`` into ``directory``. The model is consumed.

    Args:
        model: a transformers causal LM in float32.
        directory: exists and is empty; the caller renames it to its final name.
        weights: format of the linear layers' and the embedding's weights.
        report: receives a short description of each step.
        reference: creates the check of the conversion from the model, its maximum length and its window;
            ``conversion_check.TextCheck`` by default.

    Raises:
        UnsupportedError: if the architecture cannot be converted, or the graph's results differ from the model's.
    """
    elsewhere = _elsewhere(model)
    try:
        return _convert(model, directory, weights, report, reference)
    except UnsupportedError as error:
        raise UnsupportedError(f"{error}; {elsewhere}") from error


def _convert(
    model: Any,
    directory: Path,
    weights: Weights,
    report: Callable[[str], None],
    reference: Callable[[Any, int, int | None], Reference] | None,
) -> GraphInfo:
    # These import torch, which starting a converted model avoids.
    from unspool.backends.openvino.conversion_check import Runner, TextCheck, one_line, refuse_difference
    from unspool.backends.openvino.joined import join_projections
    from unspool.backends.openvino.trace import TreeScorer

    max_length, window = _checked(model)
    activation_group = _activation_group(model, weights)
    report("running the original model")
    expected = (reference or TextCheck)(model, max_length, window)
    report("tracing the graph")
    join_projections(model, directory)
    scorer = TreeScorer(model, ("mask", "mask_sliding") if window else ("mask",))
    try:
        kv_heads, groups, head_dim, value_dim = scorer.shapes()
        info = GraphInfo(
            layers=scorer.layers,
            kv_heads=kv_heads,
            groups=groups,
            head_dim=head_dim,
            value_dim=value_dim,
            vocab_size=expected.vocab_size,
            max_length=max_length,
            sliding_window=window,
            eos_token_ids=ends.of_torch(model),
            weights=weights,
            activation_group=activation_group,
            architecture=scorer.architecture,
        )
        runners: list[Runner] = []

        def runner(info: GraphInfo) -> Runner:
            runners.append(Runner(info, scorer.scored))
            return runners[-1]

        refuse_difference(expected.compared(info, runner), "the traced form", scorer.architecture)
    except UnsupportedError:
        raise
    except Exception as error:  # the model's own code runs in a way it was not written for, so it may raise anything
        raise UnsupportedError(
            f"{scorer.architecture} cannot score token trees on openvino ({one_line(error)})"
        ) from error
    graph = _trace(scorer, info)
    report("comparing the graph with the model")
    _compare_graph(graph, runners, scorer.architecture)
    # The graph shares the model's memory: compressed weights are freed only without other references.
    runners.clear()
    for parameter in model.parameters():
        parameter.data = parameter.data.new_empty(0)
    if weights != "fp32":
        report(f"compressing the weights to {weights}")
        graph = _compress(graph, weights)
    report("saving")
    imported("openvino").save_model(graph, directory / "openvino_model.xml", compress_to_fp16=False)
    info.save(directory)
    return info


def _compare_graph(graph: Any, runners: Sequence[Runner], architecture: str) -> None:
    """Check that the graph returns what the traced module returned, pass by pass."""
    from unspool.backends.openvino.conversion_check import Compared, refuse_difference
    from unspool.backends.openvino.graph_parts import run

    passes = [one for runner in runners for one in runner.passes]
    try:
        found = run(graph, [inputs for inputs, _ in passes])
    except (
        RuntimeError
    ) as error:  # from OpenVINO: the model's own code made shapes or values of the traced text constant
        raise UnsupportedError(
            f"OpenVINO can run the graph of {architecture} only on the text it was traced with"
        ) from error
    refuse_difference(
        (
            Compared(name.replace("_", " "), outputs[name], wanted[name])
            for outputs, (_, wanted) in zip(found, passes, strict=True)
            for name in wanted
        ),
        "the graph",
        architecture,
    )


def _elsewhere(model: Any) -> str:
    """Advice if this model cannot be converted: checks whether the other backend can run it."""
    from unspool.backends.torch.model import check

    try:
        check(model)
    except UnsupportedError:
        return "the transformers backend cannot run it either; use another model"
    return "try --backend transformers"


def _checked(model: Any) -> tuple[int, int | None]:
    """The maximum length and the window of sliding layers, from the configuration."""
    from unspool.backends.branching import SLIDING, max_length, windows

    return max_length(model), windows(model).get(SLIDING)


def _activation_group(model: Any, weights: Weights) -> int:
    """The largest group size that divides every linear layer's input size: fewer scales are faster."""
    import torch

    widths = {layer.in_features for layer in model.modules() if isinstance(layer, torch.nn.Linear)}
    if weights == "int4" and (odd := sorted(width for width in widths if width % _INT4_GROUP)):
        raise UnsupportedError(
            f"int4 has one scale per {_INT4_GROUP} weights of a row, but {type(model).__name__} has rows of {odd[0]}; "
            "use --weights int8"
        )
    sizes = (_INT4_GROUP, 32) if weights == "int4" else (128, 64, 32)
    return next((size for size in sizes if all(width % size == 0 for width in widths)), 32)


def _trace(scorer: Any, info: GraphInfo) -> Any:
    import torch

    from unspool.backends.openvino.trace import OUTPUTS

    n, capacity = 3, 7
    example = (
        torch.arange(n)[None],
        torch.arange(capacity, capacity + n)[None],
        torch.arange(n),
        *[torch.zeros(info.groups * n, capacity + n) for _ in scorer.masks],
        *[torch.zeros(info.layers, info.kv_heads, capacity, size) for size in (info.head_dim, info.value_dim + 1)],
    )
    try:
        # No second trace to compare with the first, as is torch's default: the graph is compared with the model below.
        decoder = imported("openvino.frontend.pytorch.ts_decoder").TorchScriptPythonDecoder(
            scorer, example_input=example, trace_kwargs={"check_trace": False}
        )
        graph = imported("openvino").convert_model(decoder, example_input=example)
    except UnsupportedError:
        raise
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise UnsupportedError(f"OpenVINO cannot convert {info.architecture}: {_untraced(error)}") from error
    names = ["ids", "positions", "rows", *scorer.masks, "past_keys", "past_values"]
    shapes: list[list[int]] = [[1, -1], [1, -1], [-1], *[[-1, -1]] * len(scorer.masks)]
    shapes += [[info.layers, info.kv_heads, -1, size] for size in (info.head_dim, info.value_dim + 1)]
    graph.reshape(dict(zip(graph.inputs, shapes, strict=True)))
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(graph.outputs, OUTPUTS, strict=False):
        port.get_tensor().set_names({name})
    return graph


def _untraced(error: Exception) -> str:
    """The reason without the source location that OpenVINO's messages begin with."""
    text = str(error)
    if names := sorted(set(re.findall(r"\b(?:aten|prim|prims|torchvision|quantized)::\w+", text))):
        return f"it has no conversion rule for {', '.join(names)}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception", "Check ", "Couldn't get"))]
    return told[0] if told else type(error).__name__


def _compress(graph: Any, weights: Weights) -> Any:
    import logging

    nncf = imported("nncf")
    logging.getLogger("nncf").setLevel(logging.WARNING)
    modes = nncf.CompressWeightsMode
    # All layers: reading the output layer is a quarter of a small model's step.
    options = (
        {"mode": modes.INT8_SYM}
        if weights == "int8"
        else {"mode": modes.INT4_SYM, "group_size": _INT4_GROUP, "ratio": 1.0, "all_layers": True}
    )
    return nncf.compress_weights(graph, **options)
