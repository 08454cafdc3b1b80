"""Resolves a model name: a catalogue name, a directory, a GGUF file, or a name on the Hugging Face hub.

All faults of the name or the file are found here, before a loader that takes seconds starts. Imports neither torch nor
transformers: a model that is already converted starts without them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError
from unspool.models import catalogue, gguf_header, identity
from unspool.models import diffusion as diffusion_files
from unspool.models.catalogue import CatalogueModel
from unspool.storage import cache as store
from unspool.storage.text_files import read_json, reason

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SETTINGS = ("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
_TEMPLATES = "additional_chat_templates/*.jinja"
_NOT_WANTED = ("*/*", "consolidated*")  # other formats of the same weights


@dataclass(frozen=True)
class ModelSource:
    """A model named by the user.

    Attributes:
        kind: type of ``path``: a GGUF file, a directory in Hugging Face layout, or such a directory in the cache of the
            hub's client.
        name: for messages.
        path: the file or directory. For a catalogue model that is not downloaded yet, its future path; see ``fetch``.
        key: 64 hex digits that change if and only if the content changes (weights, configuration or tokenizer). The
            SHA-256 of a GGUF file; for a hub model, that of its name and commit.
        model: the catalogue entry, if the name is in the catalogue.
    """

    kind: Literal["gguf", "directory", "hub"]
    name: str
    path: Path
    key: str
    model: CatalogueModel | None = None

    def fetch(self) -> Path:
        """``path``, after downloading a catalogue model that is not in the cache.

        Separate from ``resolve``, because a converted model no longer needs its GGUF.
        """
        if self.model is None:
            return self.path
        from unspool.models import download

        return download.fetch(self.model)


def resolve(name: str) -> ModelSource:
    """Resolve ``name`` and check the model as far as possible without loading it.

    Tried in this order: a catalogue name, a directory, a GGUF file, ``owner/name`` on the Hugging Face hub. A catalogue
    model is not downloaded here; a hub model is, unless it is in the hub's cache.

    Raises:
        UnknownNameError: if it is none of these; the message suggests the closest catalogue name.
        UnspoolError: if a file is missing, truncated or unsupported, or the hub cannot be reached.
    """
    known = catalogue.models()
    if name in known:
        from unspool.models import download

        model = known[name]
        return ModelSource("gguf", name, download.raw_path(model), model.sha256, model)
    try:
        path = Path(name).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, a null byte, no permission
        why = getattr(error, "strerror", None) or reason(error)
        raise UnspoolError(
            f"{name[:80]!r} is not a model: {why}; give a path, or a name of `unspool models`"
        ) from error
    if path.is_dir():
        _check_directory(path)
        return ModelSource("directory", path.resolve().name, path.resolve(), _directory_key(path))
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise UnspoolError(f"no such file: {name}; give the path of a GGUF file, or a name of `unspool models`")
        return ModelSource("gguf", path.name, path.resolve(), identity.of_file(path.resolve(), gguf_header.read))
    if path.is_file():
        raise UnsupportedError(f"{name} is not a model: give a .gguf file or a directory with config.json")
    if _HUB_NAME.fullmatch(name):
        snapshot = _hub_snapshot(name)
        key = hashlib.sha256(f"{name}@{snapshot.name}".encode()).hexdigest()
        return ModelSource("hub", name, snapshot, key)
    if "/" in name or "\\" in name:
        raise UnspoolError(f"no such file or directory: {name}; give a path, or a name of `unspool models`")
    if name in diffusion_files.shipped():
        raise UnsupportedError(f"{name} is a diffusion model; use `unspool generate` or `unspool tradeoff`")
    raise UnknownNameError("model", name, [*known, *diffusion_files.shipped()])


def _check_directory(path: Path) -> None:
    if not (path / "config.json").is_file():
        hint = next((f"; for the GGUF in it give {file}" for file in sorted(path.glob("*.gguf"))), "")
        raise UnsupportedError(f"{path} has no config.json, so it is not a model in Hugging Face layout{hint}")
    files = weight_files(path)
    if missing := [file.relative_to(path) for file in files if not file.is_file()]:
        raise UnspoolError(f"{path} is not complete: {len(missing)} weight files are missing, first {missing[0]}")
    if not files:
        raise UnsupportedError(
            f"{path} has no .safetensors weights; pickled weights are not loaded, since they can run code: convert "
            "them with transformers' save_pretrained"
        )


def weight_files(path: Path) -> list[Path]:
    """The weight files that transformers loads from a directory. A single file precedes an index of shards.

    If it finds neither, all weight files: the directory belongs to a backend with its own format.

    Raises:
        UnspoolError: if the index is damaged.
    """
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        return sorted(path.glob("*.safetensors"))
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise UnspoolError(f"{index} is damaged, it names no weight files; fetch it again")
    return sorted({path / shard for shard in shards.values()})


def _directory_key(path: Path) -> str:
    settings = {file for pattern in (*_SETTINGS, _TEMPLATES) for file in path.glob(pattern) if file.is_file()}
    return identity.of_directory(path, settings | set(weight_files(path)))


def _hub_snapshot(name: str) -> Path:
    """The directory of a hub model, from the hub's cache if present; data files only, never code."""
    import huggingface_hub as hub
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import LocalEntryNotFoundError

    from unspool.models import download

    def download_all(**options: Any) -> Path:
        patterns = ["*.safetensors", *_SETTINGS]
        path = Path(hub.snapshot_download(name, allow_patterns=patterns, ignore_patterns=list(_NOT_WANTED), **options))
        # One pattern each: no pattern excludes all other directories.
        hub.snapshot_download(name, allow_patterns=[_TEMPLATES], revision=path.name, **options)
        return path

    try:
        snapshot = download_all(local_files_only=True)
        _check_directory(snapshot)
        return snapshot
    except (LocalEntryNotFoundError, UnspoolError):
        pass  # missing, or an interrupted download: the hub's client completes it
    except ValueError as error:  # not a valid name on the hub
        raise UnspoolError(f"{name[:80]!r} is not a model: no such directory, and not a name on the hub") from error
    try:
        download.ask_hub(name, "config.json")
        snapshot = download_all()
    except UnspoolError as error:
        raise UnspoolError(f"cannot load {name!r}: no such directory, and {error}") from error
    except Exception as error:  # any exception of the hub's client, in one line
        if store.is_full(error, Path(HF_HUB_CACHE)):
            raise UnspoolError(f"the disk of {HF_HUB_CACHE} is full; free some space") from error
        raise UnspoolError(f"cannot download {name!r} from the hub: {download.first_line(error)}") from error
    _check_directory(snapshot)
    return snapshot
