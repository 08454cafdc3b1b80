"""Conversions in the cache. Each is made once, complete, with a manifest that records its source.

``converted/<content key>/<format and version>/`` contains the files and ``manifest.json``: the source, the size of
every file and the SHA-256 of small ones. A conversion that does not match its manifest is made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unspool.errors import UnspoolError
from unspool.models.resolve import ModelSource
from unspool.storage import cache as store
from unspool.storage.text_files import reason

MANIFEST = "manifest.json"

_STREAM = "iostream error"  # OpenVINO's message for a full disk, after removing the file that filled it

_SMALL = 16 << 20  # bytes; files up to this size are hashed at every start, which takes some milliseconds


def ensure(source: ModelSource, name: str, make: Callable[[Path], object], verb: str = "converts") -> Path:
    """The directory ``name`` of a model's conversions, made on first use. Safe across processes.

    Args:
        make: writes the files into an empty directory; nothing is kept if it raises.
        verb: what another process does, for the message while waiting for it.

    Raises:
        UnspoolError: if ``make`` raises, the disk is full, or the cache cannot be written.
    """
    final = store.converted_dir() / source.key / name
    if is_whole(final):
        return final
    with store.lock(f"convert-{source.key}", f"another process {verb} {source.name}; waiting for it"):
        if is_whole(final):
            return final
        if final.exists():
            store.say(f"{final} is damaged or from an older unspool; making it again")
            store.remove(final)
        with store.atomic_directory(final) as directory:
            try:
                make(directory)
            except UnspoolError:
                raise
            except Exception as error:  # converting runs several libraries, which may raise any exception
                if _STREAM in str(error) or store.is_full(error, directory):
                    raise store.full_disk(directory.parent) from error
                raise UnspoolError(f"cannot convert {source.name}: {reason(error)}") from error
            sign(directory, source)
    return final


def is_whole(directory: Path) -> bool:
    """Whether a conversion has its manifest and all files in the right size; small files are hashed too."""
    manifest = read_manifest(directory)
    if manifest is None:
        return False
    try:
        return all(_fact(directory / name) == fact for name, fact in manifest["files"].items())
    except OSError:
        return False


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """The manifest of a conversion; None if it is missing or damaged."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) and isinstance(manifest.get("name"), str):
        return manifest
    return None


def sign(directory: Path, source: ModelSource) -> None:
    """Write the manifest of a conversion in its present state."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    manifest = {
        "name": source.name,
        "path": None if source.model else str(source.path),
        "files": {path.relative_to(directory).as_posix(): _fact(path) for path in files},
    }
    with store.atomic_file(directory / MANIFEST) as file:
        file.write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _fact(file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    return {"size": size, "sha256": store.sha256_of(file)} if size <= _SMALL else {"size": size}


@dataclass(frozen=True)
class Conversion:
    """A conversion, or what is left of one.

    Attributes:
        key: content key of the source model.
        format: weight format and version.
        name, path: of the source model; None if no manifest of this model gives them.
        signed: whether it has its own manifest.
        size: bytes on disk.
        directory: where the conversion is.
    """

    key: str
    format: str
    name: str | None
    path: str | None
    signed: bool
    size: int
    directory: Path


def every() -> Iterator[Conversion]:
    """All conversions in the cache, unfinished ones included."""
    root = store.converted_dir()
    for model in sorted(root.iterdir()) if root.is_dir() else []:
        manifests = {path: read_manifest(path) for path in sorted(model.iterdir())} if model.is_dir() else {}
        told = next((manifest for manifest in manifests.values() if manifest), {})
        for path, manifest in manifests.items():
            about = manifest or told
            size = store.size_on_disk(path)
            yield Conversion(
                model.name, path.name, about.get("name"), about.get("path"), manifest is not None, size, path
            )
