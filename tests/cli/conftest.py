"""The program in this process: a process of its own takes seconds to import what it needs."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.models import tokenizers_made
from unspool import cli

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """Exit code and both outputs of the program, run in this process."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(), "utf-8"))

    def do(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["unspool", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return end.value.code, *capsys.readouterr()

    return do


@pytest.fixture
def random_model(tmp_path: Path) -> Path:
    """The directory of a model that is converted and measured in seconds."""
    tokenizer = tokenizers_made.byte_level()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=tokenizer.get_vocab_size(), **sizes)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "random")
    return tokenizers_made.directory(tmp_path / "random", tokenizer, {"chat_template": tokenizers_made.TEMPLATE}, {})
