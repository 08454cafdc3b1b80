"""``unspool models``: what the catalogue offers, what of it is on this disk; ``pull`` and ``remove``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from unspool.backends import catalogue, diffusion_models, download, store
from unspool.backends.catalogue import CatalogueModel
from unspool.errors import UnspoolError

app = typer.Typer(help="List the known models; fetch them, or remove them from this disk.", no_args_is_help=False)

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of the catalogue.")]


@dataclass(frozen=True)
class _OnDisk:
    """Bytes of a model in the cache: its GGUF, the rest of an interrupted download, and conversions by format."""

    gguf: int
    partial: int
    converted: dict[str, int]


@app.callback(invoke_without_command=True)
def list_models(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
) -> None:
    """List the catalogue: licence, size, sources, and what is cached."""
    if context.invoked_subcommand:
        if as_json:
            raise UnspoolError("--json belongs to the list alone: use `unspool models --json`")
        return
    if as_json:
        typer.echo(json.dumps([_as_data(model) for model in catalogue.models().values()], indent=1))
    else:
        _print_table()


@app.command()
def pull(names: Names) -> None:
    """Download models into the cache."""
    for model in [catalogue.find(name) for name in names]:
        typer.echo(f"{model.name}: {download.fetch(model)}")


@app.command()
def remove(names: Names) -> None:
    """Remove models and their conversions from the cache. They can be fetched again."""
    for model in [catalogue.find(name) for name in names]:
        with (
            store.lock(f"download-{model.name}", f"another process is downloading {model.name}; waiting for it"),
            store.lock(f"convert-{model.sha256}", f"another process is converting {model.name}; waiting for it"),
        ):
            freed = sum(store.remove(path) for path in _paths(model))
        typer.echo(f"{model.name}: {f'freed {store.format_bytes(freed)}' if freed else 'nothing was cached'}")


def _paths(model: CatalogueModel) -> tuple[Path, Path, Path]:
    return download.raw_path(model), download.partial_dir(model), _conversions(model)


def _conversions(model: CatalogueModel) -> Path:
    return store.converted_dir() / model.sha256


def _on_disk(model: CatalogueModel) -> _OnDisk:
    directory = _conversions(model)
    formats = sorted(path for path in directory.iterdir() if store.is_final(path)) if directory.is_dir() else []
    return _OnDisk(
        store.size_on_disk(download.raw_path(model)),
        store.size_on_disk(download.partial_dir(model)),
        {path.name: store.size_on_disk(path) for path in formats},
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
        "converted": found.converted,
    }


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
        lines += [f"{name} {store.format_bytes(size)}" for name, size in found.converted.items()]
        name = f"{model.name} (default)" if model.name == catalogue.default_model() else model.name
        sources = "\n".join(str(source) for source in model.sources)
        table.add_row(name, model.licence, store.format_bytes(model.size), sources, "\n".join(lines) or "-")
    Console().print(table)
    if names := diffusion_models.shipped():
        typer.echo(f"Diffusion models that come with unspool: {', '.join(names)}")
