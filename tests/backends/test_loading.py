"""Backends by name, and backends of installed packages."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Fast
from tokenizers.models import WordLevel

from unspool.backends import loading
from unspool.backends.toy import ToyModel
from unspool.errors import UnspoolError
from unspool.models.resolve import ModelSource
from unspool.models.tokenizer import Tokenizer


class Installed:
    name = "installed"

    def load(self, directory: Path, vocab_size: int = 4) -> ToyModel:
        return ToyModel.random(vocab_size=vocab_size)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("installed", f"{__name__}:Installed", "unspool.backends")
    monkeypatch.setattr(loading, "entry_points", lambda group: [entry])
    loading.backends.cache_clear()
    yield
    loading.backends.cache_clear()


def _source(directory: Path, kind: str = "directory") -> ModelSource:
    return ModelSource(kind, "tiny", directory, "key")  # type: ignore[arg-type]


def test_unknown_backends_and_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnspoolError, match="did you mean 'openvino'"):
        loading.load(_source(tmp_path), "openvno", print, {})
    with pytest.raises(UnspoolError, match="did you mean 'weights'"):
        loading.load(_source(tmp_path), "openvino", print, {"weight": "int8"})
    with pytest.raises(UnspoolError, match="option of the transformers backend 'weights'"):
        loading.load(_source(tmp_path), "transformers", print, {"weights": "int8"})


def test_a_backend_of_an_installed_package_loads_a_directory(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "cache"))
    Fast(WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": [2, 3]}))
    loaded = loading.load(_source(tmp_path), "installed", print, {"vocab_size": 6})
    assert (loaded.model.vocab_size, loaded.eos_token_ids) == (6, (2, 3))
    assert Tokenizer(loaded.tokenizer).vocabulary == {"a": 0}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 1}))
    assert loading.load(_source(tmp_path), "installed", print, {}).eos_token_ids == (1,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [-1, 1, 6, 1]}))  # -1: none
    assert loading.load(_source(tmp_path), "installed", print, {"vocab_size": 6}).eos_token_ids == (1,)
    with pytest.raises(UnspoolError, match="not GGUF"):
        loading.load(_source(tmp_path / "x.gguf", "gguf"), "installed", print, {})
