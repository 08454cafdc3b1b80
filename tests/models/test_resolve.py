"""What ``-m`` means, and what is wrong with files that cannot be models."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import gguf
import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub.utils import filter_repo_objects
from transformers import LlamaConfig, LlamaForCausalLM

from unspool.backends import prepare
from unspool.errors import UnknownNameError, UnspoolError
from unspool.models import catalogue, download, gguf_header, identity, resolve
from unspool.storage import cache as store


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)


def write_gguf(path: Path, split: int = 0) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", "d"])
    writer.add_array("numbers", [1, 2, 3])
    writer.add_float32("float", 0.5)
    writer.add_custom_alignment(64)
    if split:
        writer.add_uint16("split.count", split)
    writer.add_tensor("first", np.ones((3, 5), dtype=np.float32))
    writer.add_tensor("quantised", np.zeros((2, 34), dtype=np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def data_end(path: Path) -> int:
    tensor = gguf.GGUFReader(path).tensors[-1]
    return int(tensor.data_offset + tensor.n_bytes)


def write_directory(path: Path) -> Path:
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"weights")
    return path


def test_catalogue_name_needs_no_download() -> None:
    source = resolve.resolve("smollm2-135m")
    model = catalogue.find("smollm2-135m")
    assert (source.kind, source.name, source.key) == ("gguf", "smollm2-135m", model.sha256)
    assert source.path == download.raw_path(model) and not source.path.exists()


def test_fetch_downloads_only_catalogue_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "fetch", lambda model: Path(model.name))
    assert resolve.resolve("smollm2-135m").fetch() == Path("smollm2-135m")
    file = write_gguf(tmp_path / "m.gguf")
    assert resolve.resolve(str(file)).fetch() == file


def test_gguf_file(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf")
    source = resolve.resolve(str(file))
    assert (source.kind, source.name, source.path) == ("gguf", "m.gguf", file)
    assert source.key == hashlib.sha256(file.read_bytes()).hexdigest()


def test_hash_of_a_local_file_is_remembered_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_gguf(tmp_path / "m.gguf")
    read: list[Path] = []
    real = store.sha256_of
    monkeypatch.setattr(store, "sha256_of", lambda path: read.append(path) or real(path))
    monkeypatch.setattr(identity, "_SETTLED_SECONDS", -1.0)
    keys = {resolve.resolve(str(file)).key for _ in range(3)}
    assert len(keys) == 1 and len(read) == 1
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(0, 0))
    assert resolve.resolve(str(file)).key not in keys
    assert len(read) == 2


def test_equal_sizes_and_times_are_not_equal_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for content in (b"one", b"two"):
        path = write_directory(tmp_path / content.decode())
        (path / "model.safetensors").write_bytes(content)
        for file in path.iterdir():
            os.utime(file, ns=(1, 1))
        keys.add(resolve.resolve(str(path)).key)
    assert len(keys) == 2
    # In place, too, where inode, size and modification time stay: the clock of ctime may not have ticked.
    for content in (b"abc", b"def"):
        with (path / "model.safetensors").open("r+b") as file:
            file.write(content)
        os.utime(path / "model.safetensors", ns=(1, 1))
        keys.add(resolve.resolve(str(path)).key)
    assert len(keys) == 4
    # A file that was at rest is told by its ctime.
    monkeypatch.setattr(identity, "_SETTLED_SECONDS", -1.0)
    before = resolve.resolve(str(path)).key
    time.sleep(0.02)
    (path / "model.safetensors").write_bytes(b"ghi")
    os.utime(path / "model.safetensors", ns=(1, 1))
    assert resolve.resolve(str(path)).key != before


def test_the_memory_holds_only_for_files_at_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = write_directory(tmp_path / "model"), time.time()

    def key(content: bytes, age: float) -> str:
        (path / "model.safetensors").write_bytes(content)
        changed = int((now - age) * 1e9)  # by a clock that has not ticked since
        monkeypatch.setattr(identity, "_stamp", lambda file: [3, changed, changed, 1, 1])
        monkeypatch.setattr(time, "time", lambda: now)
        return resolve.resolve(str(path)).key

    assert key(b"abc", 0.5) != key(b"def", 0.5)
    assert key(b"abc", 60) == key(b"def", 60)  # what the memory is for: not read again


def test_content_alone_is_the_key(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "model")
    key = resolve.resolve(str(path)).key
    os.utime(path / "model.safetensors", ns=(0, 0))
    shutil.copytree(path, tmp_path / "elsewhere")
    assert resolve.resolve(str(path)).key == key == resolve.resolve(str(tmp_path / "elsewhere")).key
    file = write_gguf(tmp_path / "m.gguf")
    shutil.copy(file, tmp_path / "n.gguf")
    assert resolve.resolve(str(file)).key == resolve.resolve(str(tmp_path / "n.gguf")).key


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"m.gguf": 1}', '{"m.gguf": {"stamp": [], "read": "x"}}'])
def test_a_damaged_memory_of_hashes_is_made_again(text: str, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf")
    key = resolve.resolve(str(file)).key
    (record,) = store.hashes_dir().glob("*.json")
    record.write_text(text)
    identity._kept.clear()
    assert resolve.resolve(str(file)).key == key
    assert json.loads(record.read_text())["m.gguf"]["sha256"] == key


def test_a_cache_that_cannot_be_written_costs_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_gguf(tmp_path / "m.gguf")
    store.root().mkdir()
    store.hashes_dir().write_text("no directory")
    read: list[Path] = []
    real = store.sha256_of
    monkeypatch.setattr(store, "sha256_of", lambda path: read.append(path) or real(path))
    monkeypatch.setattr(identity, "_SETTLED_SECONDS", -1.0)
    key = hashlib.sha256(file.read_bytes()).hexdigest()
    assert [resolve.resolve(str(file)).key for _ in range(2)] == [key, key]
    assert len(read) == 1  # this process keeps it


@pytest.mark.parametrize("text", ['{"weight_map": {', "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{}"])
def test_a_damaged_index_of_shards_is_one_line(text: str, tmp_path: Path) -> None:
    path = write_directory(tmp_path / "model")
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UnspoolError, match=r"model\.safetensors\.index\.json is damaged") as told:
        resolve.resolve(str(path))
    assert "\n" not in str(told.value)


def test_a_header_with_numbers_that_cannot_be_is_damaged(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf")
    content, end = bytearray(file.read_bytes()), data_end(file)
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = content.copy()
        for at in rng.integers(4, end // 2, 3):
            damaged[at] = rng.integers(256)
        file.write_bytes(damaged)
        try:
            gguf_header.read(file)
        except UnspoolError as error:
            assert "\n" not in str(error)


def test_truncated_gguf_says_how_much_is_missing(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf")
    end, content = data_end(file), file.read_bytes()
    file.write_bytes(content[:end])
    gguf_header.read(file)  # padding after the last tensor may be absent
    file.write_bytes(content[: end - 1])
    with pytest.raises(UnspoolError, match=rf"truncated GGUF: .* has {end - 1} bytes, 1 bytes are missing"):
        resolve.resolve(str(file))
    file.write_bytes(content[: end - 30])
    with pytest.raises(UnspoolError, match="30 bytes are missing"):
        resolve.resolve(str(file))


def test_gguf_cut_anywhere_is_truncated(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf")
    content, end = file.read_bytes(), data_end(file)
    for length in range(4, end):
        file.write_bytes(content[:length])
        with pytest.raises(UnspoolError, match="truncated GGUF"):
            gguf_header.read(file)


def test_files_that_are_not_readable_gguf(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    for content in (b"", b"PK\x03\x04 a zip archive"):
        file.write_bytes(content)
        with pytest.raises(UnspoolError, match="not a GGUF file"):
            resolve.resolve(str(file))
    for version in (b"\x01\0\0\0", b"\0\0\0\x03"):
        file.write_bytes(b"GGUF" + version + bytes(64))
        with pytest.raises(UnspoolError, match="unknown kind"):
            resolve.resolve(str(file))
    with pytest.raises(UnspoolError, match="split GGUF"):
        resolve.resolve(str(write_gguf(tmp_path / "split.gguf", split=2)))


def test_directory(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "model")
    source = resolve.resolve(str(path))
    assert (source.kind, source.name, source.path) == ("directory", "model", path)
    assert resolve.resolve(str(path)).key == source.key
    keys = {source.key}
    (path / "config.json").write_text('{"a": 1}')
    keys.add(resolve.resolve(str(path)).key)
    (path / "model.safetensors").write_bytes(b"weight5")
    keys.add(resolve.resolve(str(path)).key)
    (path / "tokenizer.json").write_text("{}")
    keys.add(resolve.resolve(str(path)).key)
    assert len(keys) == 4
    (path / "README.md").write_text("not part of the model")
    assert resolve.resolve(str(path)).key in keys


def test_directories_that_are_not_models(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "model")
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(shards))
    (path / "model-1.safetensors").write_bytes(b"")
    (path / "model.safetensors").unlink()
    with pytest.raises(UnspoolError, match=r"first model-2\.safetensors"):
        resolve.resolve(str(path))
    (path / "model.safetensors.index.json").unlink()
    for weights in path.glob("*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UnspoolError, match="pickled weights are not loaded"):
        resolve.resolve(str(path))
    (path / "config.json").unlink()
    (path / "x.gguf").write_bytes(b"")
    with pytest.raises(UnspoolError, match=r"no config\.json.*x\.gguf"):
        resolve.resolve(str(path))


def test_a_single_file_of_weights_beside_an_index_is_the_model(tmp_path: Path) -> None:
    """It is what transformers loads; so it is what is checked, and what the key is made of."""
    path = tmp_path / "model"
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(path, max_shard_size="8KB")
    assert (path / "model.safetensors.index.json").is_file() and len(resolve.weight_files(path)) > 1
    torch.manual_seed(1)
    single = LlamaForCausalLM(config)
    single.save_pretrained(tmp_path / "single")
    shutil.copy(tmp_path / "single" / "model.safetensors", path)
    assert resolve.weight_files(path) == [path / "model.safetensors"]
    key = resolve.resolve(str(path)).key
    for shard in path.glob("model-*.safetensors"):
        shard.write_bytes(b"damaged")  # nobody reads it
    source = resolve.resolve(str(path))
    assert source.key == key
    loaded = prepare.load_torch(source)
    assert torch.equal(loaded.lm_head.weight, single.lm_head.weight)
    (path / "model.safetensors").write_bytes(b"damaged")
    assert resolve.resolve(str(path)).key != key
    with pytest.raises(UnspoolError, match=r"model\.safetensors is damaged"):
        prepare.load_torch(resolve.resolve(str(path)))


def test_missing_files_and_unknown_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("missing.gguf", str(tmp_path / "missing"), "./missing", "~/missing-model"):
        with pytest.raises(UnspoolError, match="no such file"):
            resolve.resolve(name)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UnspoolError, match="is not a model"):
        resolve.resolve("notes.txt")
    with pytest.raises(UnknownNameError, match=r"did you mean 'qwen2\.5-coder-0\.5b'"):
        resolve.resolve("qwen2.5-coder-0.5")


@pytest.mark.parametrize(
    "name", ["a" * 5000, "x\0y", "~no-such-user-of-this-system/model", "dir/" + "b" * 300, "a--b/c"]
)
def test_names_that_no_file_can_have_are_one_line(name: str) -> None:
    with pytest.raises(UnspoolError) as told:
        resolve.resolve(name)
    assert "\n" not in str(told.value) and len(str(told.value)) < 500


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_directory(tmp_path / "model")

    def refuse(file: Path) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(store, "sha256_of", refuse)
    with pytest.raises(UnspoolError, match=r"cannot read .*config\.json: Permission denied"):
        resolve.resolve(str(path))


def test_hub_name_without_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnspoolError, match=r"'owner/name'.*HF_HUB_OFFLINE") as caught:
        resolve.resolve("owner/name")
    assert "\n" not in str(caught.value)


def test_hub_model_comes_from_the_hubs_cache_and_without_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snapshots = [write_directory(tmp_path / "commit1"), write_directory(tmp_path / "commit2")]
    calls: list[dict[str, object]] = []

    def snapshot(repo_id: str, **options: object) -> str:
        calls.append(options)
        return str(snapshots[0])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    first = resolve.resolve("owner/name")
    assert (first.kind, first.name, first.path) == ("hub", "owner/name", snapshots[0])
    assert [call.get("local_files_only") for call in calls] == [True, True]
    assert not any(".py" in pattern or ".bin" in pattern or pattern == "*" for pattern in calls[0]["allow_patterns"])
    snapshots.pop(0)
    assert resolve.resolve("owner/name").key != first.key


def test_a_hub_model_brings_all_its_chat_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_directory(tmp_path / "commit")
    there = ["config.json", "model.safetensors", "additional_chat_templates/tool_use.jinja", "onnx/config.json", "a.py"]
    fetched: set[str] = set()

    def snapshot(repo_id: str, allow_patterns: list[str], ignore_patterns: list[str] | None = None, **_: object) -> str:
        fetched.update(filter_repo_objects(there, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    resolve.resolve("owner/name")
    assert fetched == set(there[:3])


def test_chat_templates_in_a_directory_of_their_own_belong_to_the_key(tmp_path: Path) -> None:
    path = write_directory(tmp_path / "model")
    keys = {resolve.resolve(str(path)).key}
    (path / "additional_chat_templates").mkdir()
    for text in ("a", "b"):
        (path / "additional_chat_templates" / "tool_use.jinja").write_text(text)
        keys.add(resolve.resolve(str(path)).key)
    (path / "tool_use.jinja").write_text("b")  # of the same name
    keys.add(resolve.resolve(str(path)).key)
    assert len(keys) == 4


def test_half_of_a_hub_model_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_directory(tmp_path / "commit")
    (path / "model.safetensors").unlink()
    asked: list[str] = []
    monkeypatch.setattr(download, "ask_hub", lambda repo_id, filename: asked.append(repo_id))

    def snapshot(repo_id: str, local_files_only: bool = False, **options: object) -> str:
        if not local_files_only:
            (path / "model.safetensors").write_bytes(b"weights")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert resolve.resolve("owner/name").path == path
    assert asked == ["owner/name"]


def test_resolving_loads_neither_torch_nor_transformers(tmp_path: Path) -> None:
    file, directory = write_gguf(tmp_path / "m.gguf"), write_directory(tmp_path / "model")
    code = (
        "import sys; from unspool.models.resolve import resolve\n"
        f"for name in ('smollm2-135m', {str(file)!r}, {str(directory)!r}): resolve(name)\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
