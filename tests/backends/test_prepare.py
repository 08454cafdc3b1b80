"""Torch models from directories: whole, or refused in one line that names the file or the weight."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models import gguf_files
from unspool.backends import prepare
from unspool.errors import UnspoolError
from unspool.models import ends
from unspool.models.resolve import ModelSource, resolve

Weights = dict[str, torch.Tensor]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "cache"))
    gguf_files.tiny("llama").save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def load(directory: Path) -> Any:
    return prepare.load_torch(ModelSource("directory", directory.name, directory, "key"))


def refusal(directory: Path) -> str:
    with pytest.raises(UnspoolError) as told:
        load(directory)
    assert "\n" not in str(told.value)
    return str(told.value)


def change(directory: Path, act: Callable[[Weights], Weights]) -> None:
    file = directory / "model.safetensors"
    save_file(act(load_file(file)), file, metadata={"format": "pt"})


def configure(directory: Path, **settings: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def test_a_whole_directory_loads_without_a_word(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ends.of_torch(load(directory)) == (2,)
    assert capfd.readouterr() == ("", "")


def test_frequencies_in_old_checkpoints_are_no_weights(directory: Path) -> None:
    frequencies = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(8) for i in range(3)}
    change(directory, lambda weights: weights | frequencies)
    load(directory)


def test_constants_of_masks_in_old_checkpoints_are_no_weights(directory: Path) -> None:
    change(directory, lambda weights: weights | {"model.layers.0.attn.masked_bias": torch.tensor(-1e4)})
    load(directory)


def test_an_adapter_is_not_left_out_in_silence(directory: Path) -> None:
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "base"}')
    assert "mine contains an adapter" in refusal(directory)


def test_an_output_layer_that_is_the_embedding_may_be_left_out(tmp_path: Path) -> None:
    gguf_files.tiny("llama", tie_word_embeddings=True).save_pretrained(tmp_path / "tied")
    load(tmp_path / "tied")
    configure(tmp_path / "tied", tie_word_embeddings=False)
    assert refusal(tmp_path / "tied").startswith("tied lacks 1 weights, first lm_head.weight")


def test_missing_renamed_and_left_over_weights_are_named(directory: Path) -> None:
    whole = load_file(directory / "model.safetensors")
    change(directory, lambda weights: {k: v for k, v in weights.items() if "layers.2.mlp" not in k})
    assert refusal(directory).startswith("mine lacks 3 weights, first model.layers.2.mlp.down_proj.weight")
    change(directory, lambda weights: {f"language_{k}": v for k, v in whole.items()})
    assert refusal(directory).startswith("mine lacks 30 weights, first lm_head.weight")
    change(directory, lambda weights: whole | {"model.layers.0.self_attn.q_norm.weight": torch.ones(16)})
    assert "contains 1 tensors" in refusal(directory) and "layers.0.self_attn.q_norm.weight" in refusal(directory)


def test_a_configuration_of_another_size_names_the_weight(directory: Path) -> None:
    configure(directory, num_hidden_layers=4)
    assert "lacks 9 weights, first model.layers.3." in refusal(directory)
    configure(directory, num_hidden_layers=2)
    assert "contains 9 tensors" in refusal(directory)
    configure(directory, num_hidden_layers=3, intermediate_size=48)
    assert "9 weights of mine have another size" in refusal(directory)
    assert "first model.layers.0.mlp.down_proj.weight: [64, 96] instead of [64, 48]" in refusal(directory)


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        *(({"quant_method": name}, name) for name in ("gptq", "awq", "compressed-tensors", "quanto", "hqq", "torchao")),
        *(({"quant_method": name}, name) for name in ("fp8", "fbgemm_fp8", "mxfp4", "a_method_of_tomorrow")),
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"bits": 4}, "a custom method"),
    ],
)
def test_quantised_checkpoints_are_refused_by_their_method(directory: Path, setting: Any, name: str) -> None:
    expected = f"mine is quantised with {name}, which unspool does not read; use the unquantised model or a GGUF"
    configure(directory, quantization_config=setting)
    assert refusal(directory) == expected
    configure(directory, quantization_config=None, text_config={"quantization_config": setting})
    assert refusal(directory) == expected


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xef\xbb\xbf{}", b"\xff\xfe\x00", POINTER, "cut"])
def test_damaged_files_are_named(directory: Path, name: str, content: bytes | str) -> None:
    file = directory / name
    file.write_bytes(file.read_bytes()[:-40] if isinstance(content, str) else content)
    message = refusal(directory)
    assert str(file) in message and "damaged" in message


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "no_such_model"},
        {"model_type": None, "architectures": None},
        {"model_type": "t5"},
        {"hidden_size": "many"},
        {"num_attention_heads": 0},
        {"rope_parameters": {"rope_type": "no_such_type"}},
        {"hidden_act": "no_such_function"},
        {"auto_map": {"AutoModelForCausalLM": "code.Model"}, "model_type": "its_own"},
    ],
)
def test_whatever_the_loader_raises_is_one_line(directory: Path, settings: dict[str, Any]) -> None:
    configure(directory, **settings)
    assert "mine" in refusal(directory)


def test_what_transformers_warns_of_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    logger = logging.get_logger("transformers.models.llama")
    with prepare.quiet():
        print("a progress bar")
        logger.warning("your weights are odd\nwith details")
        logger.warning("your weights are odd\nwith details")
        logger.warning("LlamaForCausalLM LOAD REPORT from: x")
    assert capsys.readouterr() == ("", "transformers: your weights are odd\n")


def test_ends_are_those_of_the_files(directory: Path) -> None:
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 5]}))
    assert ends.of_torch(load(directory)) == ends.of_directory(directory) == (2, 5)
    (directory / "generation_config.json").unlink()
    configure(directory, eos_token_id=[4, 9])
    assert ends.of_torch(load(directory)) == ends.of_directory(directory) == (4, 9)
    configure(directory, eos_token_id=None)
    assert ends.of_torch(load(directory)) == ends.of_directory(directory) == ()


@pytest.mark.parametrize("eos", ["</s>", [2, "x"], {"id": 2}])
def test_ends_that_are_no_ids_are_named(directory: Path, eos: Any) -> None:
    configure(directory, eos_token_id=eos)
    (directory / "generation_config.json").unlink()
    with pytest.raises(UnspoolError, match=r"config\.json: eos_token_id must be an id or a list of ids"):
        ends.of_directory(directory)


def test_a_damaged_conversion_is_converted_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reports: list[str] = []

    def convert(source: ModelSource, where: Path, weights: str, report: Any) -> None:
        (where / "openvino_model.bin").write_bytes(bytes(100))

    monkeypatch.setattr(prepare, "_convert", convert)
    where = prepare.converted(resolve(str(directory)), "int8", reports.append)
    assert prepare.converted(resolve(str(directory)), "int8", reports.append) == where and len(reports) == 1
    (where / "openvino_model.bin").write_bytes(bytes(99))
    assert prepare.converted(resolve(str(directory)), "int8", reports.append) == where and len(reports) == 2
    assert "is damaged" in capsys.readouterr().err and (where / "openvino_model.bin").stat().st_size == 100
