"""What was trained, made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unspool.methods.diffusion.learn2pd import UnmaskFilter
from unspool.methods.drafters.specdec_pp.head import AcceptanceHead
from unspool.training.artifact import Artifact, Tensors, file_of


def unmask_filter(path: Path, *tensors: np.ndarray, belongs_to: tuple[str, ...] = ()) -> None:
    """Write a filter to a file, or into a directory."""
    made = UnmaskFilter(*tensors)
    Artifact("unmask filter", "learn2pd", belongs_to, made.tensors).save(file_of(path, "learn2pd"))


def acceptance_head(tensors: Tensors, belongs_to: tuple[str, ...] = ()) -> Artifact:
    return Artifact("acceptance head", "specdec_pp", belongs_to, tensors, {"models": ["the target", "the draft"]})


def head_of(tensors: Tensors) -> AcceptanceHead:
    return AcceptanceHead(acceptance_head(tensors))
