"""``unspool models``: list the catalogue and the cache; ``pull`` and ``remove`` models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from unspool.backends import conversions
from unspool.backends.conversions import Conversion
from unspool.backends.openvino.convert import FORMAT_VERSION
from unspool.errors import UnknownNameError, UnspoolError
from unspool.models import catalogue, download, tokenizer_files
from unspool.models import diffusion as diffusion_files
from unspool.models.catalogue import CatalogueModel
from unspool.storage import cache as store

_TOKENIZER = f"tokenizer-v{tokenizer_files.FORMAT_VERSION}"

app = typer.Typer(help="List, download and remove models and their conversions.", no_args_is_help=False)

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names from the catalogue.")]


@dataclass(frozen=True)
class _OnDisk:
    """A model in the cache: bytes of its GGUF file and of an unfinished download, and its conversions."""

    gguf: int
    partial: int
    converted: list[Conversion]


@app.callback(invoke_without_command=True)
def list_models(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
) -> None:
    """List the catalogue and all conversions: licence, size, sources, and what is cached."""
    if context.invoked_subcommand:
        if as_json:
            raise UnspoolError("--json is only for the list: use `unspool models --json`")
        return
    if as_json:
        known = [_as_data(model) for model in catalogue.models().values()]
        typer.echo(json.dumps([*known, *(_other_as_data(*other) for other in _others().items())], indent=1))
    else:
        _print_table()


@app.command()
def pull(names: Names) -> None:
    """Download models into the cache."""
    for model in [catalogue.find(name) for name in names]:
        typer.echo(f"{model.name}: {download.fetch(model)}")


@app.command()
def remove(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Names from the list.")] = None,
    old: Annotated[
        bool,
        typer.Option(
            "--old", help="Remove unfinished conversions and those that this version of unspool does not use."
        ),
    ] = False,
) -> None:
    """Remove models and their conversions from the cache. They can be downloaded and converted again."""
    if bool(names) == old:
        raise UnspoolError(
            "name the models to remove, or use --old for conversions that this version of unspool does not use"
        )
    if old:
        unused = [conversion for conversion in conversions.every() if not _is_current(conversion)]
        _freed("unused conversions", sum(_remove_conversion(conversion) for conversion in unused))
        return
    known = catalogue.models()
    others = _others()
    for name in names or []:
        if name not in known and name not in others:
            raise UnknownNameError("model", name, [*known, *others])
    for name in names or []:
        freed = sum(_remove_conversion(conversion) for conversion in others.get(name, []))
        if name in known:
            freed += _remove_model(known[name])
        _freed(name, freed)


def _freed(name: str, freed: int) -> None:
    typer.echo(f"{name}: {f'freed {store.format_bytes(freed)}' if freed else 'nothing was cached'}")


def _remove_model(model: CatalogueModel) -> int:
    with (
        store.lock(f"download-{model.name}", f"another process is downloading {model.name}; waiting for it"),
        store.lock(f"convert-{model.sha256}", f"another process is converting {model.name}; waiting for it"),
    ):
        return sum(store.remove(path) for path in _paths(model))


def _remove_conversion(conversion: Conversion) -> int:
    name = conversion.name or conversion.format
    with store.lock(f"convert-{conversion.key}", f"another process is converting {name}; waiting for it"):
        freed = store.remove(conversion.directory)
        model = conversion.directory.parent
        if model.is_dir() and not any(model.iterdir()):
            store.remove(model)
    return freed


def _is_current(conversion: Conversion) -> bool:
    """Whether this version of unspool would use it."""
    if not store.is_final(conversion.directory):
        return False
    if conversion.format.startswith("openvino-"):
        return conversion.signed and f"-v{FORMAT_VERSION}" in conversion.format
    return not conversion.format.startswith("tokenizer") or conversion.format == _TOKENIZER


def _others() -> dict[str, list[Conversion]]:
    """Conversions of models outside the catalogue, by name; those of unknown models by the start of their key."""
    known = {model.sha256 for model in catalogue.models().values()}
    found: dict[str, list[Conversion]] = {}
    for conversion in conversions.every():
        if conversion.key not in known:
            found.setdefault(conversion.name or conversion.key[:12], []).append(conversion)
    return found


def _paths(model: CatalogueModel) -> tuple[Path, Path, Path]:
    return download.raw_path(model), download.partial_dir(model), store.converted_dir() / model.sha256


def _on_disk(model: CatalogueModel) -> _OnDisk:
    return _OnDisk(
        store.size_on_disk(download.raw_path(model)),
        store.size_on_disk(download.partial_dir(model)),
        [conversion for conversion in conversions.every() if conversion.key == model.sha256],
    )


def _as_data(model: CatalogueModel) -> dict[str, object]:
    found = _on_disk(model)
    return {
        "name": model.name,
        "title": model.title,
        "licence": model.licence,
        "size": model.size,
        "sha256": model.sha256,
        "sources": [str(source) for source in model.sources],
        "default": model.name == catalogue.default_model(),
        "path": str(download.raw_path(model)) if download.is_cached(model) else None,
        "partial": found.partial,
        **_converted(found.converted),
    }


def _other_as_data(name: str, found: list[Conversion]) -> dict[str, object]:
    path = next((conversion.path for conversion in found if conversion.path), None)
    nothing: dict[str, object] = dict.fromkeys(("title", "licence", "size", "sha256"))
    return {"name": name, **nothing, "sources": [], "default": False, "path": path, "partial": 0, **_converted(found)}


def _converted(found: list[Conversion]) -> dict[str, object]:
    """Bytes by format: complete conversions, and those that this version of unspool does not use."""
    whole = [conversion for conversion in found if store.is_final(conversion.directory)]
    return {
        "converted": {conversion.format: conversion.size for conversion in whole},
        "unused": sum(conversion.size for conversion in found if not _is_current(conversion)),
    }


def _line(conversion: Conversion) -> str:
    note = "" if _is_current(conversion) else " (unused)" if store.is_final(conversion.directory) else " (unfinished)"
    return f"{conversion.format} {store.format_bytes(conversion.size)}{note}"


def _print_table() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(caption=f"Cache: {store.root()}. Packages are community mirrors; every file's SHA-256 is checked.")
    for column in ("name", "licence", "size", "sources", "on this disk"):
        table.add_column(column, overflow="fold")
    for model in catalogue.models().values():
        found = _on_disk(model)
        lines = [f"GGUF {store.format_bytes(found.gguf)}"] if download.is_cached(model) else []
        if found.partial:
            lines.append(f"unfinished download {store.format_bytes(found.partial)}")
        lines += [_line(conversion) for conversion in found.converted]
        name = f"{model.name} (default)" if model.name == catalogue.default_model() else model.name
        sources = "\n".join(str(source) for source in model.sources)
        table.add_row(name, model.licence, store.format_bytes(model.size), sources, "\n".join(lines) or "-")
    for name, conversions_of in _others().items():
        table.add_row(name, "", "", "", "\n".join(map(_line, conversions_of)))
    Console().print(table)
    if any(not _is_current(conversion) for conversion in conversions.every()):
        typer.echo("Remove unused and unfinished conversions with `unspool models remove --old`.")
    if names := diffusion_files.shipped():
        typer.echo(f"Diffusion models bundled with unspool: {', '.join(names)}")
