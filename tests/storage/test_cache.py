"""The cache directory: whole files or none, one owner at a time, clear errors for a full disk."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from unspool.errors import UnspoolError
from unspool.storage import cache as store

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_root_follows_the_environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.root() == cache
    monkeypatch.delenv("UNSPOOL_CACHE")
    assert store.root().is_absolute() and "unspool" in str(store.root())


def test_atomic_file_appears_whole_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    for text in ("one", "two"):
        with store.atomic_file(target) as temporary:
            temporary.write_text(text)
            assert not target.exists() or target.read_text() == "one"
        assert target.read_text() == text
    assert names(target.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interruption_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), store.atomic_file(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise error
    with pytest.raises(error), store.atomic_directory(tmp_path / "directory") as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "half").write_text("half")
        raise error
    assert names(tmp_path) == []


def test_atomic_directory_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "directory"
    with store.atomic_directory(target) as temporary:
        (temporary / "a").write_text("1")
        assert not target.exists()
        assert not store.is_final(temporary)
    assert names(tmp_path) == ["directory"] and (target / "a").read_text() == "1"
    assert store.is_final(target)
    with pytest.raises(FileExistsError), store.atomic_directory(target):
        pass
    assert (target / "a").read_text() == "1"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _temporary_of(directory: Path, pid: int, host: str | None = None) -> Path:
    path = directory / f"model.{host or store._host()}.{pid}.0123abcd.tmp"
    path.mkdir(parents=True)
    (path / "half").write_text("half")
    return path


def test_sweep_removes_only_what_was_abandoned(tmp_path: Path) -> None:
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    killed, running = _temporary_of(tmp_path, finished.pid), _temporary_of(tmp_path, os.getpid())
    elsewhere, elsewhere_old = _temporary_of(tmp_path, 1, "00000000"), _temporary_of(tmp_path, 2, "00000000")
    long_ago = time.time() - 48 * 3600
    os.utime(elsewhere_old, (long_ago, long_ago))
    other = tmp_path / "notes.tmp"
    other.write_text("not ours")
    with store.atomic_file(tmp_path / "file") as temporary:
        temporary.write_text("")
    assert not killed.exists() and not elsewhere_old.exists()
    assert running.exists() and elsewhere.exists() and other.exists()
    assert socket.gethostname() not in running.name


def test_require_space_names_both_amounts_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, 5_000_000))
    store.require_space(tmp_path / "not" / "yet", 5_000_000)
    with pytest.raises(UnspoolError, match=r"7\.0 MB needed, 5\.0 MB free.*UNSPOOL_CACHE"):
        store.require_space(tmp_path, 7_000_000)


def test_a_disk_that_runs_full_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnspoolError, match=r"full.*UNSPOOL_CACHE"), store.atomic_file(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(RuntimeError, match="something else"), store.atomic_file(tmp_path / "file"):
        raise RuntimeError("something else")
    # A native writer says nothing of the disk.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 0))
    with pytest.raises(UnspoolError, match="full"), store.atomic_directory(tmp_path / "directory") as temporary:
        raise RuntimeError("cannot write")
    assert names(tmp_path) == []


def test_a_cache_that_cannot_be_made_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "file"))
    with pytest.raises(UnspoolError, match="UNSPOOL_CACHE"), store.lock("name", "waiting"):
        pass


def _count_under_lock(log: Path) -> None:
    with store.lock("job", "another process has the job; waiting"):
        if not log.exists():
            time.sleep(0.3)
            with store.atomic_file(log) as temporary:
                temporary.write_text(str(os.getpid()))
            with log.with_suffix(".count").open("a") as count:
                count.write("x")


def test_two_processes_do_the_work_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count_under_lock, args=(tmp_path / "log",)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert (tmp_path / "log.count").read_text() == "x"


def test_waiting_is_said_and_the_lock_is_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("spawn")
    holding, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(holding, done))
    other.start()
    assert holding.wait(60)
    done.set()
    with store.lock("job", "waiting for the other one"):
        pass
    other.join(60)
    assert "waiting for the other one" in capsys.readouterr().err
    with store.lock("job", "nobody holds it"):
        pass
    assert "nobody" not in capsys.readouterr().err


def _hold(holding: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event) -> None:
    with store.lock("job", ""):
        holding.set()
        done.wait(60)
        time.sleep(0.5)  # long enough for the other one to find the lock taken


def test_remove_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x").write_bytes(b"123")
    (tmp_path / "a" / "b" / "y").write_bytes(b"4567")
    assert store.size_on_disk(tmp_path / "a") == 7
    assert store.remove(tmp_path / "a") == 7 and not (tmp_path / "a").exists()
    assert store.remove(tmp_path / "a") == 0


def test_reading_a_large_file_is_said_when_it_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(3 << 20))
    monkeypatch.setattr(store, "_LONG_SECONDS", -1.0)
    store.sha256_of(file)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(store, "_LARGE", 1 << 20)
    assert store.sha256_of(file) == hashlib.sha256(bytes(3 << 20)).hexdigest()
    assert capsys.readouterr().err == "reading all of large (3.1 MB) to identify it by its content\n"
