"""What a conversion takes is told before any work, against what the machine and the container leave."""

from __future__ import annotations

import re
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unspool.backends import mapped, memory
from unspool.errors import UnspoolError

GB = 10**9


def test_sizes_come_from_headers(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"c": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "model-00002-of-00002.safetensors")
    save_file({"a": torch.zeros(3, 5)}, tmp_path / "consolidated.safetensors")  # the same weights in another layout
    assert memory.tensor_sizes(tmp_path) == {"a": 15, "b": 7, "c": 2}
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"\x05")
    assert memory.tensor_sizes(tmp_path) == {}, "loading refuses it"


def test_sizes_of_a_gguf_count_elements_not_bytes(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("a", np.zeros((4, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert memory.tensor_sizes(tmp_path / "m.gguf") == {"a": 128}


def _needed(path: Path, monkeypatch: pytest.MonkeyPatch, name: str, in_files: bool = True) -> float:
    """GB that a model of 3.09 billion weights takes, as the refusal says."""
    sizes = {"embedding": 300_000_000, **{f"layers.{i}.{name}": 10_000_000 for i in range(279)}}
    monkeypatch.setattr(memory, "tensor_sizes", lambda path: sizes)
    monkeypatch.setattr(memory, "available", lambda: 3 * GB)
    monkeypatch.setattr(mapped, "IN_FILES", in_files)
    with pytest.raises(UnspoolError) as told:
        memory.require_to_convert(path, "m")
    found = re.fullmatch(
        r"converting m takes (\d+\.\d) GB of memory, 3\.0 GB are available; close other .*", str(told.value)
    )
    assert found
    needed = float(found[1])
    monkeypatch.setattr(memory, "available", lambda: int((needed + 0.1) * GB))
    memory.require_to_convert(path, "m")
    return needed


def test_too_little_memory_is_one_line_with_both_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 4.5 < _needed(tmp_path, monkeypatch, "up_proj") < 6  # the result, and copies of the largest


def test_what_is_read_into_memory_first_counts_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").touch()
    assert 12.4 < _needed(tmp_path / "m.gguf", monkeypatch, "ffn_up") < 16
    assert 11.2 < _needed(tmp_path, monkeypatch, "experts.3.up_proj") < 15
    assert _needed(tmp_path, monkeypatch, "up_proj", in_files=False) > 16


def test_the_disk_has_room_for_the_files_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a": torch.zeros(300, 50), "b": torch.zeros(70)}, tmp_path / "model.safetensors")
    assert memory.disk_to_convert(tmp_path) == 2 * 4 * 15070
    monkeypatch.setattr(memory, "tensor_sizes", lambda path: {"a": 15000, "b": 70})
    (tmp_path / "m.gguf").touch()
    assert memory.disk_to_convert(tmp_path / "m.gguf") == 4 * (15070 + 15000)


def _group(directory: Path, limit: str, used: int, files: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "memory.max").write_text(f"{limit}\n")
    (directory / "memory.current").write_text(f"{used}\n")
    (directory / "memory.stat").write_text(f"anon {used - files}\ninactive_file {files}\n")


def test_a_container_s_limit_counts_and_pages_of_files_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _group(tmp_path, "max", 9 * GB, 0)
    _group(tmp_path / "outer", str(8 * GB), 7 * GB, 3 * GB)
    _group(tmp_path / "outer" / "inner", "max", 5 * GB, 0)
    files = [
        (group / "memory.max", group / "memory.current", group / "memory.stat")
        for group in (tmp_path / "outer" / "inner", tmp_path / "outer", tmp_path, tmp_path / "none")
    ]
    monkeypatch.setattr(memory, "_limits", lambda: files)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: type("Free", (), {"available": 100 * GB}))
    assert memory.available() == 4 * GB
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: type("Free", (), {"available": 2 * GB}))
    assert memory.available() == 2 * GB


def test_this_machine_has_some() -> None:
    assert memory.available() > 0
