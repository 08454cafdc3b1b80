"""What a conversion takes is told before any work, against what the machine and the container leave."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unspool.backends import memory
from unspool.errors import UnspoolError

GB = 10**9


def test_sizes_come_from_headers(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"c": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "model-00002-of-00002.safetensors")
    save_file({"a": torch.zeros(3, 5)}, tmp_path / "consolidated.safetensors")  # the same weights in another layout
    assert sorted(memory.tensor_sizes(tmp_path)) == [2, 7, 15]
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"\x05")
    assert memory.tensor_sizes(tmp_path) == [], "loading refuses it"


def test_sizes_of_a_gguf_count_elements_not_bytes(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("a", np.zeros((4, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert memory.tensor_sizes(tmp_path / "m.gguf") == [128]


def test_too_little_memory_is_one_line_with_both_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "tensor_sizes", lambda path: [300_000_000, *[10_000_000] * 279])  # 3.09 G
    monkeypatch.setattr(memory, "available", lambda: 18 * GB)
    memory.require_to_convert(tmp_path, "m")  # 3.09 billion weights
    monkeypatch.setattr(memory, "available", lambda: 12 * GB)
    with pytest.raises(UnspoolError, match=r"^converting m takes 17\.\d GB of memory, 12\.0 GB are available; .*$"):
        memory.require_to_convert(tmp_path, "m")


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
