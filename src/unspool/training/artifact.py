"""The trained part of a method: one file of tensors that records its kind, its models, and how it was trained.

A safetensors file whose metadata is the header ``{kind, method, version, belongs_to, trained_with}``. Its name ends in
``.artifact``, so that nothing mistakes it for the weights of a model in the same directory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unspool.engine import arrays
from unspool.errors import UnspoolError
from unspool.storage.text_files import parse_json

if TYPE_CHECKING:
    from unspool.methods.resources import Resources

VERSION = 1
"""Version of the header; increased whenever the meaning of the header or of the tensors changes."""

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Artifact:
    """A trained part.

    Attributes:
        kind: for messages: ``"acceptance head"``.
        method: name of the method that reads it.
        belongs_to: for each model, the target first, the relevant part of its identity (``models.identity.loaded``):
            the key of its content alone, or with backend and weight format.
        tensors: numeric arrays by name.
        trained_with: options, data and figures, as plain data.
        version: of the header.
    """

    kind: str
    method: str
    belongs_to: tuple[str, ...]
    tensors: Tensors
    trained_with: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def save(self, path: Path) -> None:
        """Write the file atomically; an existing one is replaced.

        Raises:
            UnspoolError: if it cannot be written.
        """
        from safetensors.numpy import save

        header = {
            "kind": self.kind,
            "method": self.method,
            "version": self.version,
            "belongs_to": self.belongs_to,
            "trained_with": self.trained_with,
        }
        tensors = {name: np.asarray(tensor, order="C") for name, tensor in self.tensors.items()}
        metadata = {"artifact": json.dumps(header)}
        arrays.replace(path, self.kind, lambda part: part.write_bytes(save(tensors, metadata)))

    @classmethod
    def load(cls, path: Path | str, method: str) -> Artifact:
        """Read a file that ``save`` wrote, or the one of the method in a directory.

        Args:
            method: the method that will use it.

        Raises:
            UnspoolError: if it cannot be read, is not a trained part, or is of another method or version.
        """
        file = file_of(Path(path), method)
        try:
            stat = file.stat()
            made = _load(file, stat.st_ctime_ns, stat.st_ino)
        except OSError as error:
            raise UnspoolError(f"cannot read {file}: {error.strerror or error}; {_train(method)}") from error
        except ValueError as error:
            raise UnspoolError(f"{file} is not a trained part ({error}); {_train(method)}") from error
        if made.method != method:
            raise UnspoolError(f"{file} is the {made.kind} of {made.method}, not of {method}; {_train(method)}")
        if made.version != VERSION:
            raise UnspoolError(
                f"{file} has version {made.version}, but this unspool reads {VERSION}; {_train(method)} again"
            )
        return made

    def check(self, resources: Resources) -> None:
        """Reject models that it was not trained for. Models of unknown identity are not checked.

        Raises:
            UnspoolError: names the models that it was trained for.
        """
        models = resources.keys()
        if not models:
            return
        if len(models) < len(self.belongs_to) or not all(map(_is_of, models, self.belongs_to)):
            names = self.trained_with.get("models")
            those = " and ".join(map(str, names)) if isinstance(names, list) else "other models"
            raise UnspoolError(
                f"the {self.kind} was trained for {those}, not for these models or weights; {_train(self.method)} "
                "for these"
            )

    def tensor(self, name: str, *shape: int | None) -> NDArray[Any]:
        """The tensor of a name; None matches any size.

        Raises:
            UnspoolError: if it is missing or has another shape.
        """
        found = self.tensors.get(name)
        if (
            found is None
            or found.ndim != len(shape)
            or any(wanted not in (None, size) for wanted, size in zip(shape, found.shape, strict=True))
        ):
            raise UnspoolError(
                f"this {self.kind} has no tensor {name!r} of the right shape; {_train(self.method)} again"
            )
        return found


def file_of(path: Path, method: str) -> Path:
    """The file of a path: itself, or the method's file in a directory."""
    return path / f"{method}.artifact" if path.is_dir() else path


def _train(method: str) -> str:
    return f"train one with `unspool train {method}`"


def _is_of(model: str, wanted: str) -> bool:
    return f"{model} ".startswith(f"{wanted} ")


@lru_cache(maxsize=8)  # a drafter is built for every request
def _load(path: Path, changed: int, inode: int) -> Artifact:
    """Raises ``ValueError`` for a file that is not an artifact."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            header = parse_json((file.metadata() or {}).get("artifact", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError("damaged, or from another program") from error
    wanted = {"kind": str, "method": str, "version": int, "belongs_to": list, "trained_with": dict}
    if not isinstance(header, dict) or {name: type(value) for name, value in header.items()} != wanted:
        raise ValueError("without its header")
    belongs_to = tuple(map(str, header.pop("belongs_to")))
    return Artifact(**header, belongs_to=belongs_to, tensors=tensors)
