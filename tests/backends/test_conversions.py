"""Conversions are whole or made again, whoever cut them and whenever the process died."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unspool.backends import conversions
from unspool.errors import UnspoolError
from unspool.models.resolve import ModelSource
from unspool.storage import cache as store

FILES = {"openvino_model.bin": bytes(9000), "openvino_model.xml": b"<net/>" * 100, "unspool.json": b'{"layers": 1}'}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "cache"))


def source(tmp_path: Path) -> ModelSource:
    return ModelSource("directory", "mine", tmp_path / "mine", "a" * 64)


def make(directory: Path) -> None:
    for name, content in FILES.items():
        (directory / name).write_bytes(content)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != conversions.MANIFEST}


def test_a_conversion_is_made_once_and_names_its_source(tmp_path: Path) -> None:
    made: list[Path] = []
    for _ in range(3):
        directory = conversions.ensure(source(tmp_path), "int8", lambda path: [made.append(path), make(path)])
    assert len(made) == 1 and contents(directory) == FILES
    (found,) = conversions.every()
    assert (found.name, found.path, found.key) == ("mine", str(tmp_path / "mine"), "a" * 64)


@pytest.mark.parametrize("name", [*FILES, conversions.MANIFEST])
@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "another"])
def test_a_damaged_conversion_is_made_again_and_it_is_said(
    name: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = conversions.ensure(source(tmp_path), "int8", make)
    file, content = directory / name, (directory / name).read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"cut": content[:-1], "empty": b"", "another": b"?" + content[1:]}[damage])
    assert contents(conversions.ensure(source(tmp_path), "int8", make)) == FILES
    assert "is damaged" in capsys.readouterr().err
    conversions.ensure(source(tmp_path), "int8", make)
    assert capsys.readouterr().err == ""  # once


def test_a_conversion_of_an_unspool_without_manifests_is_made_again(tmp_path: Path) -> None:
    old = store.converted_dir() / ("a" * 64) / "int8"
    old.mkdir(parents=True)
    (old / "openvino_model.bin").write_bytes(b"old")
    assert contents(conversions.ensure(source(tmp_path), "int8", make)) == FILES


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "mine"}', '{"name": "mine", "files": {"missing": {"size": 1}}}'])
def test_a_damaged_manifest_is_no_traceback(text: str, tmp_path: Path) -> None:
    directory = conversions.ensure(source(tmp_path), "int8", make)
    (directory / conversions.MANIFEST).write_text(text)
    assert not conversions.is_whole(directory)
    assert len(list(conversions.every())) == 1


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    def full(directory: Path) -> None:
        make(directory)
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:  # as a library's error is told in one line
            raise UnspoolError("cannot read the tokenizer") from error

    with pytest.raises(UnspoolError, match=r"the disk of .* is full"):
        conversions.ensure(source(tmp_path), "int8", full)
    assert list(conversions.every()) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("basic_ios::clear: iostream error"), r"the disk of .* is full"),  # OpenVINO's on a full disk
        (RuntimeError("Check 'false' failed\nat line 151"), r"cannot convert mine: Check 'false' failed$"),
        (AttributeError("head_dim"), r"cannot convert mine: AttributeError: head_dim$"),
    ],
)
def test_what_a_library_raises_is_one_line(error: Exception, message: str, tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        make(directory)
        raise error

    with pytest.raises(UnspoolError, match=message):
        conversions.ensure(source(tmp_path), "int8", fail)
    assert list(conversions.every()) == []


def test_killed_in_the_middle_nothing_stays_in_the_way(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from unspool.backends import conversions; from unspool.models.resolve import ModelSource\n"
        "def make(directory):\n"
        "    (directory / 'openvino_model.bin').write_bytes(b'half')\n"
        "    print('half', flush=True); time.sleep(60)\n"
        f"conversions.ensure(ModelSource('directory', 'mine', Path('mine'), {'a' * 64!r}), 'int8', make)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "half\n"
    os.kill(process.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    process.wait()
    (rest,) = conversions.every()
    assert not rest.signed and not store.is_final(rest.directory)
    start = time.monotonic()
    assert contents(conversions.ensure(source(tmp_path), "int8", make)) == FILES
    assert time.monotonic() - start < 30  # nobody waits for the lock of the dead
    assert [found.format for found in conversions.every()] == ["int8"]


def test_a_whole_conversion_needs_no_cache_that_can_be_written(tmp_path: Path) -> None:
    directory = conversions.ensure(source(tmp_path), "int8", make)
    locks = store.root() / "locks"
    for lock in locks.iterdir():
        lock.unlink()
    locks.rmdir()
    locks.write_text("no directory can be made here")
    assert conversions.ensure(source(tmp_path), "int8", make) == directory
    (directory / "openvino_model.bin").unlink()
    with pytest.raises(UnspoolError, match="cannot write to the cache"):
        conversions.ensure(source(tmp_path), "int8", make)


def test_files_that_are_made_again_on_purpose_are_signed_again(tmp_path: Path) -> None:
    directory = conversions.ensure(source(tmp_path), "int8", make)
    (directory / "unspool.json").write_text("{}")
    assert not conversions.is_whole(directory)
    conversions.sign(directory, source(tmp_path))
    conversions.sign(directory, source(tmp_path))
    assert conversions.is_whole(directory)


def test_the_manifest_holds_sizes_and_hashes(tmp_path: Path) -> None:
    directory = conversions.ensure(source(tmp_path), "int8", make)
    files = json.loads((directory / conversions.MANIFEST).read_text())["files"]
    assert {name: fact["size"] for name, fact in files.items()} == {name: len(c) for name, c in FILES.items()}
