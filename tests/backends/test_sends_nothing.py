"""Loading, converting and generating open no socket and leave no file outside the cache."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import unspool

_WATCHED = """
import os, sys

allowed = tuple(sys.argv[1:3])
seen = []

def watch(event, args):
    if event.startswith("socket.") and event != "socket.gethostname":
        seen.append(f"{event} {args}")
    elif event == "open" and isinstance(args[0], (str, bytes)) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        path = os.fsdecode(args[0])
        if not os.path.abspath(path).startswith(allowed) and path != os.devnull:
            seen.append(f"open {path}")
    elif event == "os.mkdir" and not os.path.abspath(os.fsdecode(args[0])).startswith(allowed):
        seen.append(f"mkdir {args[0]}")

sys.addaudithook(watch)
import unspool
for backend, options in (("openvino", {"weights": "int8"}), ("transformers", {})):
    result = unspool.load(sys.argv[3], backend=backend, **options).generate(
        [3, 4, 5, 6], method="plain", max_new_tokens=3, eos_token_id=[]
    )
    assert len(result.token_ids) == 3
print(seen)
"""


def test_nothing_is_sent_and_nothing_is_left_outside_the_cache(tmp_path: Path) -> None:
    model, home, cache, temporary = (tmp_path / name for name in ("model", "home", "cache", "temporary"))
    home.mkdir()
    temporary.mkdir()
    _tiny(model)
    before = {path: path.stat().st_mtime_ns for path in model.iterdir()}
    environment = {
        "HOME": str(home),
        "UNSPOOL_CACHE": str(cache),
        "TMPDIR": str(temporary),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(unspool.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, str(cache), str(temporary), str(model)],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert not list(home.rglob("*"))
    assert not [path for path in temporary.rglob("*") if path.is_file()]
    assert {path: path.stat().st_mtime_ns for path in model.iterdir()} == before
    assert list(cache.rglob("openvino_model.bin"))


def test_openvino_and_nncf_come_through_one_door() -> None:
    package = Path(unspool.__file__).parent
    found = []
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            found += [(file.name, name) for name in names if name.split(".")[0].startswith(("openvino", "nncf"))]
    assert not found


@pytest.mark.parametrize("before", [None, "module"])
def test_what_was_known_of_the_telemetry_package_stays(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from unspool.backends.openvino.imports import imported

    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    if before:
        monkeypatch.setitem(sys.modules, "openvino_telemetry", ast)  # any module
    assert imported("openvino").__name__ == "openvino"
    assert sys.modules.get("openvino_telemetry") is (ast if before else None)
    with pytest.raises(ModuleNotFoundError):
        imported("openvino_of_nobody")
    assert sys.modules.get("openvino_telemetry") is (ast if before else None)


def _tiny(directory: Path) -> None:
    from tokenizers import Tokenizer, models

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    Tokenizer(models.WordLevel({f"t{i}": i for i in range(32)}, unk_token="t0")).save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
