"""Weights in files while a model is converted: the same values, out of memory, and no file stays."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models import gguf_files
from unspool.backends import mapped, prepare
from unspool.backends.openvino.convert import convert
from unspool.backends.openvino.joined import join_projections
from unspool.models.resolve import ModelSource

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is mapped")


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "_SMALL", 0)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def file_of(tensor: torch.Tensor) -> str:
    """The file that the numbers of a tensor are in, as Linux names it; nothing for memory."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, _, _, _, *name = line.split(maxsplit=5)
        first, last = (int(end, 16) for end in span.split("-"))
        if first <= tensor.data_ptr() < last:
            return " ".join(name)
    raise ValueError("not mapped at all")


def in_file(tensor: torch.Tensor, directory: Path) -> bool:
    """Whether the numbers of a tensor are in a file of that directory that has no name any more."""
    file = file_of(tensor)
    return file.startswith(str(directory)) and file.endswith("(deleted)")


def checkpoint(directory: Path, kind: str = "llama", dtype: torch.dtype = torch.bfloat16, **options: Any) -> Path:
    gguf_files.tiny(kind, **options).to(dtype).save_pretrained(directory)
    return directory


def load(path: Path, scratch: Path | None = None, kind: Any = "directory") -> Any:
    return prepare.load_torch(ModelSource(kind, path.name, path, "key"), scratch=scratch)


def assert_same(model: Any, other: Any) -> None:
    found, expected = model.state_dict(), other.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, expected[name]), name
    for (name, buffer), (_, wanted) in zip(model.named_buffers(), other.named_buffers(), strict=True):
        assert buffer.dtype == wanted.dtype and torch.equal(buffer, wanted), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("tied", [True, False])
def test_checkpoints_are_mapped_with_the_same_values(
    tmp_path: Path, scratch: Path, dtype: torch.dtype, tied: bool
) -> None:
    path = checkpoint(tmp_path / "mine", dtype=dtype, tie_word_embeddings=tied)
    model = load(path, scratch)
    assert_same(model, load(path))
    for weight in model.parameters():
        if dtype == torch.float32:
            assert file_of(weight) == str(path / "model.safetensors")
        else:
            assert in_file(weight, scratch) and "model.safetensors" in file_of(
                weight
            )  # loaded so, not moved afterwards
    assert not any(scratch.iterdir())


def test_float16_checkpoints_with_other_types_are_the_same(tmp_path: Path, scratch: Path) -> None:
    path = checkpoint(tmp_path / "mine")
    file = path / "model.safetensors"
    weights = load_file(file)
    name = "model.layers.0.mlp.up_proj.weight"
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.tensor([1, 0, 1], dtype=torch.bool)}
    third = {name: torch.full_like(weights[name], 1 / 3, dtype=torch.float32)}
    save_file(weights | frequencies | third, file, metadata={"format": "pt"})
    model = load(path, scratch)
    assert_same(model, load(path))
    assert model.get_parameter(name)[0, 0] == torch.tensor(1 / 3)


def test_weights_that_the_loader_stacks_are_moved(tmp_path: Path, scratch: Path) -> None:
    path = checkpoint(tmp_path / "mine", "qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
    model = load(path, scratch)
    assert_same(model, load(path))
    assert all(in_file(weight, scratch) for weight in model.parameters())


def test_a_gguf_is_moved(tmp_path: Path, scratch: Path) -> None:
    path = gguf_files.write(tmp_path / "mine.gguf", gguf_files.tiny("llama"))
    model = load(path, scratch, "gguf")
    assert_same(model, load(path, kind="gguf"))
    assert all(in_file(weight, scratch) for weight in model.parameters())


def test_what_is_joined_is_in_a_file(tmp_path: Path, scratch: Path) -> None:
    model = load(checkpoint(tmp_path / "mine"), scratch)
    join_projections(model, scratch)
    joined = [weight for name, weight in model.named_parameters() if "joined" in name]
    assert joined and all(in_file(weight, scratch) for weight in joined)


def test_a_conversion_leaves_its_result_alone(tmp_path: Path, scratch: Path) -> None:
    model = load(checkpoint(tmp_path / "mine"), scratch)
    convert(model, scratch, "int8", lambda text: None)
    assert {path.name for path in scratch.iterdir()} == {"openvino_model.xml", "openvino_model.bin", "unspool.json"}


def test_a_failed_write_leaves_nothing(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint(tmp_path / "mine")

    def full(tensor: torch.Tensor, file: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped, "_write", full)
    with pytest.raises(OSError, match="No space"):
        mapped.joined([torch.ones(4)], scratch)
    with pytest.raises(OSError, match="No space"), mapped.widened(path, scratch):
        pass
    assert not any(scratch.iterdir())
