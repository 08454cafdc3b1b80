"""From what ``-m`` named to what a backend can load: torch models from GGUF, converted graphs in the cache."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from unspool.backends import memory, store
from unspool.backends.openvino_convert import FORMAT_VERSION, WEIGHTS, Weights
from unspool.backends.resolve import ModelSource
from unspool.errors import UnknownNameError, UnspoolError

Report = Callable[[str], None]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")

DTYPES = ("float32", "float64", "float16", "bfloat16")
"""Of torch models."""

# Bytes of the converted model per byte of GGUF (4 to 8 bits a weight) or of a float16 checkpoint, generously.
_GROWTH = {"int8": 2.0, "int4": 1.5, "fp32": 8.0}


def converted(source: ModelSource, weights: str, report: Report) -> Path:
    """The directory with the OpenVINO graph of a model, made on first use. Safe when two processes ask at once.

    Raises:
        UnspoolError: if the model cannot be read or converted, or the disk is full. Nothing half-made stays.
    """
    if weights not in WEIGHTS:
        raise UnknownNameError("weight format", weights, WEIGHTS)
    final = store.converted_dir() / source.key / f"openvino-{weights}-v{FORMAT_VERSION}"
    if final.is_dir():
        return final
    name = f"{source.name} ({weights})"
    with store.lock(f"convert-{source.key}", f"another process converts {name}; waiting for it"):
        if final.is_dir():
            return final
        path = source.fetch()
        store.require_space(final.parent, int(_size(path) * _GROWTH[weights]))
        memory.require_to_convert(path, name)
        report(f"converting {name} for OpenVINO, once")
        with store.atomic_directory(final) as directory:
            _convert(source, directory, weights, report)
    return final


def _convert(source: ModelSource, directory: Path, weights: Weights, report: Report) -> None:
    from unspool.backends.openvino_convert import convert

    report("reading the weights")
    model = load_torch(source)
    with quiet():
        save_tokenizer(source, directory)
        convert(model, directory, weights, report)


def load_torch(source: ModelSource, dtype: str = "float32") -> Any:
    """The model on the CPU, from a directory or a GGUF file (de-quantised by transformers). No remote code is run.

    Args:
        dtype: of weights, cache and arithmetic, see ``DTYPES``.

    Raises:
        UnspoolError: with transformers' or torch's reason, if the model cannot be loaded.
    """
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    where, gguf = _location(source)
    with quiet():
        try:
            model = AutoModelForCausalLM.from_pretrained(
                where, dtype=getattr(torch, dtype), local_files_only=True, trust_remote_code=False, **gguf
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UnspoolError(f"cannot load {source.name}: {reason}") from error
    # A de-quantised GGUF model is an ordinary one; transformers would go on calling it quantised.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model.eval()


def torch_device(device: str) -> Any:
    """The torch device of that name, such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` (CUDA is untested here).

    Raises:
        UnspoolError: if torch does not know it, or this machine does not have it.
    """
    import torch

    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise UnspoolError(f"unknown device {device!r}; use 'cpu', 'cuda' or 'cuda:N'") from error
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise UnspoolError(f"no device {device!r} on this machine for this torch; use device='cpu'")
    return target


def tokenizer_directory(source: ModelSource) -> Path:
    """A directory with the tokenizer's files: the model's own, or for GGUF one in the cache, made on first use."""
    if source.kind != "gguf":
        return source.path
    final = store.converted_dir() / source.key / "tokenizer"
    if not final.is_dir():
        with store.lock(f"convert-{source.key}", f"another process reads {source.name}; waiting for it"):
            if not final.is_dir():
                with store.atomic_directory(final) as directory, quiet():
                    save_tokenizer(source, directory)
    return final


def save_tokenizer(source: ModelSource, directory: Path) -> None:
    """Write the tokenizer's files to ``directory``."""
    if source.kind != "gguf" and (source.path / "tokenizer.json").is_file():
        for name in _TOKENIZER_FILES:
            if (source.path / name).is_file():
                shutil.copyfile(source.path / name, directory / name)
        return
    from transformers import AutoTokenizer

    where, gguf = _location(source)
    try:
        AutoTokenizer.from_pretrained(where, local_files_only=True, **gguf).save_pretrained(directory)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnspoolError(f"cannot read the tokenizer of {source.name}: {reason}") from error


def _location(source: ModelSource) -> tuple[Path, dict[str, str]]:
    path = source.fetch()
    if source.kind == "gguf":
        return path.parent, {"gguf_file": path.name}
    return path, {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.glob("*.safetensors"))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' own progress bars and advice off the terminal; errors still come as exceptions.

    They write to both streams, and not all of them can be told not to; what happens is told through ``report``.
    """
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with (
            warnings.catch_warnings(),
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)
