"""Converts masked-diffusion checkpoints for OpenVINO, once per checkpoint and weight format.

The graph is the causal one (``convert``). It adds the mask that it receives, so with a mask of zeros attention is
bidirectional. It is traced from the network that runs on torch; the mask token's facts are stored with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from unspool.backends import conversions, memory
from unspool.backends.branching import SLIDING, windows
from unspool.backends.openvino.convert import FORMAT_VERSION, Weights, convert
from unspool.backends.torch.checkpoints import load_denoiser
from unspool.errors import UnknownNameError, UnsupportedError
from unspool.models.diffusion import CANVAS
from unspool.models.resolve import resolve
from unspool.storage import cache as store

WEIGHTS: tuple[Weights, ...] = ("fp32", "int8")

_VERSION = 1
"""Increased whenever checkpoints are read differently or other facts of them are stored."""

# Bytes of the converted model per byte of the 16-bit checkpoint, generously.
_GROWTH = {"fp32": 2.5, "int8": 1.5}


def converted(directory: Path, weights: str, report: Callable[[str], None]) -> Path:
    """The directory with a checkpoint's graph, converted on first use. Safe across processes.

    Args:
        directory: see ``load_denoiser``.
        weights: one of ``WEIGHTS``.
        report: receives progress messages.

    Raises:
        UnspoolError: if the checkpoint cannot be read or converted, or the disk is full. No partial result is kept.
    """
    if weights not in WEIGHTS:
        raise UnknownNameError("weight format of canvases", weights, WEIGHTS)
    source = resolve(str(directory.resolve()))

    def make(temporary: Path) -> None:
        size = sum(file.stat().st_size for file in directory.glob("*.safetensors"))
        name = f"{source.name} ({weights})"
        store.require_space(temporary.parent, int(size * _GROWTH[weights]) + memory.disk_to_convert(directory))
        memory.require_to_convert(directory, name)
        report(f"converting {name} for OpenVINO, once")
        _convert(directory, temporary, weights, report)

    return conversions.ensure(source, f"openvino-canvas-{weights}-v{FORMAT_VERSION}.{_VERSION}", make)


def _convert(directory: Path, final: Path, weights: Weights, report: Callable[[str], None]) -> None:
    from unspool.backends import mapped

    # Imports torch, which starting a converted model does not need.
    from unspool.backends.openvino.canvas_check import CanvasCheck
    from unspool.backends.prepare import quiet

    report("reading the weights")
    with quiet():
        denoiser = load_denoiser(directory)
        window = windows(denoiser.model).get(SLIDING)
        if window:
            raise UnsupportedError(
                f"layers of {directory} see only {window} positions, not a whole canvas; use another model"
            )
        mapped.move(denoiser.model, final)
        denoiser.model.float()
        convert(denoiser.model, final, weights, report, lambda _, length, __: CanvasCheck(denoiser, length))
    about = {"mask_id": denoiser.mask_id, "eos_token_id": denoiser.eos_token_id, "shift": denoiser.shift}
    (final / CANVAS).write_text(json.dumps(about), encoding="utf-8")
