"""From the source named by ``-m`` to what a backend can load: torch models from GGUF, converted graphs in the cache."""

from __future__ import annotations

import codecs
import hashlib
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from unspool.backends import conversions, gguf, losses, memory
from unspool.backends.openvino.convert import FORMAT_VERSION, WEIGHTS, Weights
from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError
from unspool.models import ends, gguf_header, tokenizer_files
from unspool.models.resolve import ModelSource, weight_files
from unspool.models.tokenizer import Tokenizer
from unspool.storage import cache as store
from unspool.storage.text_files import read_json, reason

Report = Callable[[str], None]

# transformers' warnings that are not shown: its table of weights, since ``losses`` reads the facts and refuses, and
# the missing loss of models that are not trained.
_NOT_SAID = ("LOAD REPORT", "loss_type=")

DTYPES = ("float32", "float64", "float16", "bfloat16")
"""dtypes of torch models."""

# Bytes of the converted model per byte of GGUF (4 to 8 bits a weight) or float16 checkpoint, generously.
_GROWTH = {"int8": 2.0, "int4": 1.5, "fp32": 8.0}


def converted(source: ModelSource, weights: str, report: Report) -> Path:
    """The directory with a model's OpenVINO graph, converted on first use. Safe across processes.

    Raises:
        UnspoolError: if the model cannot be read or converted, or the disk is full. No partial result is kept.
    """
    if weights not in WEIGHTS:
        raise UnknownNameError("weight format", weights, WEIGHTS)

    def make(directory: Path) -> None:
        path = source.fetch()
        name = f"{source.name} ({weights})"
        store.require_space(directory.parent, int(_size(path) * _GROWTH[weights]) + memory.disk_to_convert(path))
        memory.require_to_convert(path, name)
        report(f"converting {name} for OpenVINO, once")
        _convert(source, directory, weights, report)

    return conversions.ensure(source, f"openvino-{weights}-v{FORMAT_VERSION}", make)


def _convert(source: ModelSource, directory: Path, weights: Weights, report: Report) -> None:
    from unspool.backends.openvino.convert import convert

    report("reading the weights")
    model = load_torch(source, scratch=directory)
    with quiet():
        save_tokenizer(source, directory)
        convert(model, directory, weights, report)


def load_torch(source: ModelSource, dtype: str = "float32", scratch: Path | None = None) -> Any:
    """The model on the CPU, from a directory or a GGUF file (de-quantised by transformers). Runs no remote code.

    Its ``generation_config.eos_token_id`` contains the end tokens named by the model's files.

    Args:
        dtype: of weights, cache and computation, see ``DTYPES``.
        scratch: directory for files in which the weights are kept, in float32; see ``mapped``.

    Raises:
        UnspoolError: if the model cannot be loaded, lacks a weight, or contains something that transformers ignores.
    """
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    import torch

    from unspool.backends import mapped

    path = source.fetch()
    with quiet() as told:
        try:
            if source.kind == "gguf":
                model = gguf.load(gguf_header.read(path), source.name, getattr(torch, dtype))
                if scratch:
                    mapped.move(model, scratch)
            else:
                model = load_directory(path, source.name, getattr(torch, dtype), scratch)
        except UnspoolError:
            raise
        except Exception as error:  # transformers' loader passes on any exception of its libraries
            raise UnspoolError(f"cannot load {source.name}: {_reason(error, told)}") from error
    return model.eval()


def load_directory(path: Path, name: str, dtype: Any, scratch: Path | None = None) -> Any:
    """A torch model from a directory in Hugging Face layout, with all weights from its files and none left over.

    Args:
        name: for messages.
        dtype: a torch dtype, or ``"auto"``.
        scratch: see ``load_torch``.

    Raises:
        UnspoolError: if files are damaged, quantised, or do not match the configuration.
        Exception: any other error of transformers.
    """
    from unspool.backends import mapped

    _check_files(path, name)
    if scratch:
        with mapped.widened(path, scratch) as (wide, names):
            model = _loaded(wide, name, dtype)
        mapped.move(model, scratch, names)
        return model
    return _loaded(path, name, dtype)


def _loaded(path: Path, name: str, dtype: Any) -> Any:
    from transformers import AutoModelForCausalLM

    model, told = AutoModelForCausalLM.from_pretrained(
        path,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported below, with the names
    )
    losses.refuse(name, model, told)
    model.generation_config.eos_token_id = list(ends.of_torch(model)) or None
    return model


def _check_files(path: Path, name: str) -> None:
    """Refuse what transformers would answer with advice, ignore, or report without the file's name."""
    from safetensors import safe_open

    config = _settings(path / "config.json")
    if (path / "generation_config.json").is_file():
        _settings(path / "generation_config.json")  # transformers ignores a damaged one, and with it the end tokens
    if (path / "adapter_config.json").is_file():  # without peft, transformers silently loads only the base model
        raise UnsupportedError(
            f"{name} contains an adapter (adapter_config.json), which unspool does not apply; merge it into the "
            "weights with peft's merge_and_unload, or remove the file to use the base model"
        )
    for part in (config, config.get("text_config") or {}):
        method = part.get("quantization_config") or part.get("compression_config")
        if method:
            known = method.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in method else "a custom method")
            raise UnsupportedError(
                f"{name} is quantised with {known}, which unspool does not read; use the unquantised model or a GGUF"
            )
    for file in weight_files(path):
        try:
            with safe_open(file, "numpy"):
                pass
        except Exception as error:  # SafetensorError has no more specific base class
            raise UnspoolError(f"{file} is damaged ({reason(error)}); fetch it again") from error


def _settings(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Refuses a byte order mark, which transformers cannot read."""
    if file.is_file() and file.read_bytes().startswith(codecs.BOM_UTF8):
        raise UnspoolError(f"{file} is damaged: it starts with a byte order mark, which transformers does not read")
    return read_json(file)


def _reason(error: Exception, told: Iterable[str]) -> str:
    """The reason in one line, including what transformers only wrote into its loading report."""
    if "above report" in str(error):
        rows = [line for text in told for line in re.sub(r"\x1b\[\d*m", "", text).splitlines() if "CONVERSION" in line]
        if rows:
            return " ".join(rows[0].replace("|", " ").split())
    return reason(error)


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
    try:
        torch.zeros(1, device=target).tolist()
    except (RuntimeError, AssertionError, ImportError) as error:  # each device type raises its own exception
        raise UnspoolError(f"no device {device!r} on this machine for this torch; use device='cpu'") from error
    return target


def tokenizer_directory(source: ModelSource) -> Path:
    """The cached directory with the tokenizer's files, written on first use. See ``tokenizer_files``.

    Raises:
        UnspoolError: if transformers cannot read the tokenizer, or unspool cannot reproduce it.
    """
    name = f"tokenizer-v{tokenizer_files.FORMAT_VERSION}"
    return conversions.ensure(source, name, lambda directory: save_tokenizer(source, directory), "reads")


def read_tokenizer(source: ModelSource, directory: Path) -> Tokenizer:
    """The tokenizer that unspool wrote to ``directory``; written again if its files are damaged or missing."""
    try:
        if not (directory / tokenizer_files.SETTINGS).is_file():
            raise tokenizer_files.DamagedError(f"{directory} has no {tokenizer_files.SETTINGS}")
        return Tokenizer(directory)
    except tokenizer_files.DamagedError:
        with store.lock(f"convert-{source.key}", f"another process reads {source.name}; waiting for it"):
            save_tokenizer(source, directory)
            conversions.sign(directory, source)
    return Tokenizer(directory)


def directory_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a directory in Hugging Face layout, of any model; transformers reads it once."""
    digest = hashlib.sha256()
    patterns = ("*.json", "*.jinja", "*/*.jinja", "*.model", "*.txt")
    for file in sorted({file for pattern in patterns for file in path.glob(pattern)}):
        digest.update(f"{file.relative_to(path)}\0{store.sha256_of(file)}\0".encode())
    source = ModelSource("directory", path.name, path, digest.hexdigest())
    return read_tokenizer(source, tokenizer_directory(source))


def save_tokenizer(source: ModelSource, directory: Path) -> None:
    """Write the tokenizer's files to ``directory``. Raises as ``tokenizer_directory``."""
    path = source.fetch()
    if source.kind == "gguf":
        tokenizer_files.make(path.parent, directory, path.name)
    else:
        tokenizer_files.make(path, directory)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in weight_files(path))


@contextmanager
def quiet() -> Iterator[Iterable[str]]:
    """Keep the libraries' progress bars and prints off the terminal; transformers' warnings are shown afterwards.

    They write to both streams, and not all of them can be configured not to; progress is reported through ``report``.
    Exceptions are raised as usual. Yields the warnings so far.
    """
    import transformers

    said: dict[str, None] = {}
    handler = _Keep(said)
    logger = transformers.logging.get_logger("transformers")
    transformers.logging.disable_default_handler()
    logger.addHandler(handler)
    try:
        with (
            warnings.catch_warnings(),
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield said
    finally:
        logger.removeHandler(handler)
        transformers.logging.enable_default_handler()
    for text in said:
        if not any(part in text for part in _NOT_SAID):
            store.say(f"transformers: {text.splitlines()[0]}")


class _Keep(logging.Handler):
    """Collects distinct warnings."""

    def __init__(self, said: dict[str, None]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        if text := record.getMessage().strip():
            self._said[text] = None
