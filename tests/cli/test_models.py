"""``unspool models``, ``pull`` and ``remove`` on a catalogue of one tiny model."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from unspool.backends import conversions
from unspool.backends.openvino.convert import FORMAT_VERSION
from unspool.cli.models import app
from unspool.errors import UnknownNameError, UnspoolError
from unspool.models import catalogue, download, tokenizer_files
from unspool.models.catalogue import CatalogueModel, PackagePart, PackageSource
from unspool.models.resolve import ModelSource
from unspool.storage import cache as store

CONTENT = b"weights of a tiny model"
TINY = CatalogueModel(
    "tiny",
    "Tiny",
    "MIT",
    hashlib.sha256(CONTENT).hexdigest(),
    len(CONTENT),
    (PackageSource((PackagePart("tinywheel==1.0", "tinywheel/model.bin"),)),),
)


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "tinywheel-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinywheel/model.bin", CONTENT)
        wheel.writestr("tinywheel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinywheel\nVersion: 1.0\n")
        wheel.writestr("tinywheel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(catalogue, "models", lambda: {"tiny": TINY})


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def listed() -> dict[str, object]:
    (entry,) = json.loads(run("--json").stdout)
    return dict(entry)


def convert(weight_format: str, size: int, key: str = TINY.sha256, name: str | None = None) -> Path:
    """A conversion; without a name, of an unspool that wrote no manifests."""
    directory = store.converted_dir() / key / weight_format
    directory.mkdir(parents=True)
    (directory / "model.bin").write_bytes(bytes(size))
    if name:
        path = Path("/somewhere") / name
        conversions.sign(directory, ModelSource("directory", name, path, key))
    return directory


NOW = f"openvino-int8-v{FORMAT_VERSION}"


def test_list_shows_what_is_on_the_disk() -> None:
    before = listed()
    assert (before["path"], before["partial"], before["converted"]) == (None, 0, {})
    assert not store.root().exists(), "listing must not write"
    assert run("pull", "tiny").exit_code == 0
    convert("int8-v1", 3000)
    convert(f"int4-v1.{store._host()}.1.0123abcd.tmp", 10)  # being written
    after = listed()
    assert after["path"] == str(download.raw_path(TINY)) and after["converted"] == {"int8-v1": 3000}
    assert after["sources"] == ["package tinywheel==1.0"] and after["sha256"] == TINY.sha256
    table = run().stdout
    assert "tiny" in table and "MIT" in table and "23 bytes" in table and "3.0 kB" in table


def test_pull_fetches_and_says_where() -> None:
    result = run("pull", "tiny")
    assert result.exit_code == 0
    assert download.raw_path(TINY).read_bytes() == CONTENT
    assert result.stdout == f"tiny: {download.raw_path(TINY)}\n"


def test_remove_frees_the_model_its_rest_and_its_conversions() -> None:
    run("pull", "tiny")
    convert("int8-v1", 3000)
    download.partial_dir(TINY).mkdir(parents=True)
    (download.partial_dir(TINY) / "parts.bin").write_bytes(bytes(977))
    assert listed()["partial"] == 977
    assert "unfinished download 977 bytes" in " ".join(run().stdout.replace("│", " ").split())
    assert run("remove", "tiny").stdout == "tiny: freed 4.0 kB\n"
    assert store.size_on_disk(store.models_dir()) == 0 and not (store.converted_dir() / TINY.sha256).exists()
    assert run("remove", "tiny").stdout == "tiny: nothing was cached\n"


def test_every_conversion_is_listed_and_removed_by_its_name() -> None:
    convert(NOW, 100, "a" * 64, "mine")
    convert("openvino-int4-v7", 200, "a" * 64, "mine")
    convert(NOW, 400, "b" * 64, "mine")  # the same directory before it changed
    convert("openvino-int8-v5", 800, "c" * 64)
    _, mine, unknown = json.loads(run("--json").stdout)
    assert mine["name"] == "mine" and mine["path"] == "/somewhere/mine" and unknown["name"] == "c" * 12
    assert set(mine["converted"]) == {NOW, "openvino-int4-v7"} and set(unknown["converted"]) == {"openvino-int8-v5"}
    table = " ".join(run().stdout.replace("│", " ").split())
    assert "mine" in table and "openvino-int8-v5 800 bytes (unused)" in table and "remove --old" in table
    assert run("remove", "mine").exit_code == 0
    assert [conversion.key for conversion in conversions.every()] == ["c" * 64]
    assert not (store.converted_dir() / ("a" * 64)).exists()
    assert run("remove", "c" * 12).stdout == f"{'c' * 12}: freed 800 bytes\n"
    assert list(conversions.every()) == []


def test_what_this_unspool_does_not_use_is_removed_together() -> None:
    kept = [convert(NOW, 100, "a" * 64, "mine"), convert(f"tokenizer-v{tokenizer_files.FORMAT_VERSION}", 50, "a" * 64)]
    convert("openvino-int4-v7", 200, "a" * 64, "mine")
    convert("openvino-int8-v5", 800, "c" * 64)
    convert("tokenizer", 1, "c" * 64)
    convert(f"{NOW}.{store._host()}.1.0123abcd.tmp", 400, "d" * 64)  # killed
    assert re.fullmatch(r"unused conversions: freed 1\.\d kB\n", run("remove", "--old").stdout)
    assert [conversion.directory for conversion in conversions.every()] == kept
    assert run("remove", "--old").stdout == "unused conversions: nothing was cached\n"


def test_remove_needs_names_or_old() -> None:
    for arguments in ((), ("--old", "tiny")):
        assert isinstance(run("remove", *arguments).exception, UnspoolError)


@pytest.mark.parametrize("command", ["pull", "remove"])
def test_unknown_names_are_found_before_anything_is_done(command: str) -> None:
    run("pull", "tiny")
    result = run(command, "tiny", "tyni")
    assert isinstance(result.exception, UnknownNameError)
    assert "did you mean 'tiny'?" in str(result.exception)
    assert download.is_cached(TINY)


def test_json_belongs_to_the_list() -> None:
    result = run("--json", "pull", "tiny")
    assert isinstance(result.exception, UnspoolError) and not download.is_cached(TINY)
