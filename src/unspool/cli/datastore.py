"""``unspool datastore``: build and inspect corpora, which ``rasd`` retrieves from and ``aded`` counts."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unspool.cli.command import App
from unspool.cli.common import ModelOption, bars, print_json
from unspool.engine.progress import Progress
from unspool.errors import UnspoolError

if TYPE_CHECKING:
    from unspool.models.tokenizer import Tokenizer

app = App(help="Build a corpus that `rasd` and `aded` draft from, or inspect one.", no_args_is_help=True)


@app.command()
def build(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE_OR_DIRECTORY...", help="Files or directories of texts and earlier outputs; see above."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory to create.")],
    model: ModelOption = None,
) -> None:
    """Build a datastore from texts, or from earlier outputs of a model.

    Each file is one document: UTF-8 text, or an output of `unspool generate` with --trace (prompt and text) or --json
    (text only), of which the token ids are used. Directories are read recursively; hidden files and files that are
    not text are skipped. Only the tokenizer of the model is loaded.

    Examples:

      unspool datastore build -m qwen2.5-coder-0.5b -o my-code src/ ../library/src

      unspool datastore build -m qwen2.5-coder-0.5b -o answers runs/*.jsonl
    """
    from unspool.methods.drafters._datastore import Datastore
    from unspool.methods.drafters._datastore.files import check_new
    from unspool.models.tokenizer import vocabulary_fingerprint

    check_new(output)
    files = list(_files(paths))
    if not files:
        raise UnspoolError(f"there is no file in {', '.join(map(str, paths))}; name files of UTF-8 text")
    hold_text = [_holds_text(file) for file in files]  # all are checked before the model is fetched
    if not any(hold_text):
        raise UnspoolError(f"there is no text in {', '.join(map(str, paths))}; name files of UTF-8 text")
    name, tokenizer = _tokenizer(model)
    reader = _Reader(name, tokenizer)
    with bars() as progress:
        documents = reader.read(files, progress)
        if not any(documents):
            raise UnspoolError(f"there is no text in {', '.join(map(str, paths))}; name files of UTF-8 text")
        made = Datastore.from_sequences(documents, vocabulary_fingerprint(tokenizer.vocabulary), name, progress)
        made.save(output)
    skipped = f" ({reader.skipped} files are not text)" if reader.skipped else ""
    typer.echo(f"{output}: {len(made)} tokens, {made.count} documents{skipped}")


@app.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="The datastore.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
) -> None:
    """Show the size of a datastore and the tokenizer that it is for."""
    from unspool.methods.drafters._datastore import Datastore
    from unspool.storage import cache as store

    opened = Datastore.open(path)
    size = store.size_on_disk(path)
    if as_json:
        data = {
            "path": str(path),
            "model": opened.model,
            "vocabulary": opened.vocabulary,
            "tokens": len(opened),
            "documents": opened.count,
            "bytes": size,
        }
        print_json(data)
        return
    typer.echo(f"{path}: {len(opened)} tokens, {opened.count} documents, {store.format_bytes(size)}")
    typer.echo(f"for models with the tokenizer of {opened.model or 'an unknown model'}")


@dataclass(frozen=True)
class _File:
    """A file to read; ``named``: given by the user, not found in a directory."""

    path: Path
    named: bool


def _files(paths: Iterable[Path]) -> Iterator[_File]:
    """Files in the order of the arguments, those of a directory sorted by name; each file once."""
    seen: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found = [_File(file, False) for file in _below(path)]
        elif path.is_file():
            found = [_File(path, True)]
        else:
            raise UnspoolError(f"no such file or directory: {path}")
        for file in found:
            if (resolved := file.path.resolve()) not in seen:
                seen.add(resolved)
                yield file


class NoTextError(UnspoolError):
    """A file that is not UTF-8 text."""


def _text(path: Path) -> str:
    """The whole text of a file; raises ``NoTextError`` if it is not text."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnspoolError(f"cannot read {path}: {error.strerror}") from error
    try:
        text = data.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("a byte of 0")
    except ValueError as error:
        raise NoTextError(f"{path} is not UTF-8 text; leave it out, or convert it") from error
    return text


def _holds_text(file: _File) -> bool:
    """Whether the file has text; raises ``NoTextError`` for a named file that is not text."""
    try:
        return bool(_text(file.path).strip())
    except NoTextError:
        if file.named:
            raise
        return False


def _below(directory: Path) -> Iterator[Path]:
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


class _Reader:
    """Reads documents as token ids."""

    def __init__(self, model: str, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.skipped = 0

    def read(self, files: Sequence[_File], progress: Progress) -> list[Sequence[int]]:
        """One document per file; files of directories that are not text are counted in ``skipped``."""
        documents: list[Sequence[int]] = []
        for done, file in enumerate(files):
            progress("reading", done, len(files))
            try:
                text = _text(file.path)
            except NoTextError:
                if file.named:
                    raise
                self.skipped += 1
                continue
            documents.append(array("i", self._ids(file.path, text)))
        progress("reading", len(files), len(files))
        return documents

    def _ids(self, path: Path, text: str) -> list[int]:
        written = _written(path, text)
        if written is None:
            return self._tokenizer.encode(text, add_special_tokens=False)
        model, ids = written
        if model != self._model:
            raise UnspoolError(f"{path} was written by {model}; build a separate datastore for it with -m {model}")
        return ids


def _written(path: Path, text: str) -> tuple[str, list[int]] | None:
    """Model and ids of a file that ``unspool generate`` wrote; None for any other text."""
    if path.suffix == ".jsonl" and text.startswith('{"kind":"header"'):
        from unspool.trace import file as trace_file

        trace = trace_file.read(path)
        steps = [event for event in trace.events if event["kind"] == "step"]
        return trace.header["model"], [
            *trace.header["prompt_token_ids"],
            *(token for step in steps for token in step["emitted"]),
        ]
    if path.suffix == ".json":
        try:
            data: Any = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if isinstance(data, dict) and {"model", "method", "token_ids", "finish_reason"} <= data.keys():
            ids = data["token_ids"]
            if not isinstance(ids, list) or any(type(token) is not int or token < 0 for token in ids):
                raise UnspoolError(f"the token_ids of {path} are not token ids; generate the file again")
            return data["model"], ids
    return None


def _tokenizer(model: str | None) -> tuple[str, Tokenizer]:
    from unspool.backends.prepare import read_tokenizer, tokenizer_directory
    from unspool.models.catalogue import default_model
    from unspool.models.resolve import resolve

    source = resolve(model or default_model())
    return source.name, read_tokenizer(source, tokenizer_directory(source))
