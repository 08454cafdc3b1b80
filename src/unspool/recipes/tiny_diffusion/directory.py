"""The directory of a small masked-diffusion model that was trained on tasks: weights, tokenizer, layout, curve."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel

from unspool.backends.prepare import quiet
from unspool.errors import UnspoolError
from unspool.models.diffusion import CANVAS
from unspool.recipes.tiny_diffusion.tasks import END, MASK, PAD, TaskSet
from unspool.storage import cache as store
from unspool.storage.text_files import parse_json, read_text
from unspool.training.checkpoint import Curve

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CURVE = "curve.json"


def write(directory: Path, model: PreTrainedModel, tasks: TaskSet, about: Mapping[str, Any], curve: Curve) -> None:
    """Write a Hugging Face directory with ``canvas.json`` and ``curve.json`` next to the model.

    Args:
        about: further entries of ``canvas.json``, besides the tasks' ids and lengths and the training seconds.
    """
    layout = {
        "mask_id": tasks.ids[MASK],
        "eos_token_id": tasks.ids[END],
        "pad_token_id": tasks.ids[PAD],
        "shift": 0,
        "prompt_length": tasks.prompt_length,
        "canvas_length": tasks.canvas_length,
        **about,
        "seconds": round(curve[-1][2]),
    }
    with quiet():
        model.save_pretrained(directory)
    (directory / "model.safetensors").chmod(0o644)  # the library makes it readable only by its owner
    tokenizer(tasks).save(str(directory / "tokenizer.json"))
    points = [{"step": step, "loss": value, "seconds": seconds} for step, value, seconds in curve]
    for name, content in ((CANVAS, layout), (CURVE, points)):
        with store.atomic_file(directory / name) as part:
            part.write_text(json.dumps(content, indent=1), "utf-8")


def history(directory: Path) -> tuple[Mapping[str, Any], Curve]:
    """How a directory's model was trained: its options and its learning curve.

    Raises:
        UnspoolError: if there is no model.
    """
    try:
        about = parse_json(read_text(directory / CANVAS))["training"]
        curve = [(point["step"], point["loss"], point["seconds"]) for point in parse_json(read_text(directory / CURVE))]
    except (UnspoolError, ValueError, KeyError, TypeError):
        raise UnspoolError(
            f"{directory} contains no model to continue from; name a directory that `unspool train diffusion` wrote"
        ) from None
    return about, curve


def read_weights(directory: Path, model: PreTrainedModel) -> None:
    """Load the weights of a directory that ``write`` wrote.

    Raises:
        UnspoolError: if its model has another shape.
    """
    from safetensors.torch import load_model

    try:
        load_model(model, str(directory / "model.safetensors"))
    except RuntimeError as error:
        raise UnspoolError(
            f"the model of {directory} has another shape; give the options that it was trained with"
        ) from error


def parameters(directory: Path) -> int:
    """Number of weights in a directory."""
    from safetensors import safe_open

    with safe_open(directory / "model.safetensors", "numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def tokenizer(tasks: TaskSet) -> Tokenizer:
    """Text to a set's symbols and back. Up to three spaces are mere separators; unknown symbols are refused."""
    fast = Tokenizer(WordLevel(tasks.ids, unk_token=""))
    pattern = "|".join(re.escape(symbol) for symbol in sorted(tasks.vocabulary, key=len, reverse=True))
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.Split(Regex("^ {1,3}$"), "removed")]
    )
    fast.decoder = decoders.Fuse()
    fast.add_special_tokens([PAD, MASK, END])
    return fast
