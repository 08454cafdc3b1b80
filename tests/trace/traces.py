"""Traces of the toy model, with a vocabulary whose pieces are hard to show, for the tests of trace files and viewer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Fast
from tokenizers.decoders import ByteLevel
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from unspool import Model
from unspool.backends.toy import ToyModel
from unspool.decoding.results import Result
from unspool.models.tokenizer import Tokenizer
from unspool.trace import file as trace_file

# The four bytes of 😀, then a word with its space, a line break, markup, and a special token.
PIECES = ("ð", "Ł", "ĺ", "Ģ", "Ġthe", "Ċ", "<b>&", "<end>")
SMILE = (0, 1, 2, 3)
PROMPT = [4, 5, 4, 6, 4, 5, 4]


def tokenizer(directory: Path) -> Tokenizer:
    fast = Fast(WordLevel({piece: i for i, piece in enumerate(PIECES)}, unk_token="Ġthe"))
    fast.pre_tokenizer = Whitespace()
    fast.decoder = ByteLevel()
    fast.add_special_tokens([AddedToken("<end>", special=True)])
    directory.mkdir(exist_ok=True)
    fast.save(str(directory / "tokenizer.json"))
    return Tokenizer(directory)


def toy(directory: Path, seed: int = 5) -> Model:
    return Model("toy", "toy", ToyModel.random(seed=seed, vocab_size=8, order=2), tokenizer(directory), ())


def run(model: Model, **options: Any) -> Result:
    return model.generate(PROMPT, **({"method": "token_recycling", "max_new_tokens": 40, "alternatives": 4} | options))


def save(path: Path, model: Model, result: Result) -> Path:
    header = trace_file.make_header(
        model.name, result.prompt_token_ids, model.tokenizer, model.language_model.vocab_size
    )
    trace_file.write(path, header, result.trace, model.tokenizer)
    return path


def recorded(path: Path, model: Model, **options: Any) -> Path:
    """Decode the prompt and write its trace."""
    return save(path, model, run(model, **options))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def put(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def canvas(path: Path, source: Path) -> Path:
    """A trace of the denoising loop, made by hand: six slots in two blocks, unmasked in three steps."""
    header, start, prefill, *_, end = lines(source)
    texts = {"4": " the", "5": "\n", "6": "<b>&"}
    steps: list[tuple[int, list[int | None], list[int], list[float]]] = [
        (0, [4, None, 6, None, None, None], [0, 2], [0.9, 0.5]),
        (0, [4, 5, 6, None, None, None], [1], [0.25]),
        (1, [4, 5, 6, 4, 4, 6], [3, 4, 5], [1.0, 0.75, 0.5]),
    ]
    rows = [
        {
            "kind": "canvas",
            "row": 0,
            "step": number,
            "block": block,
            "slots": slots,
            "committed": committed,
            "confidence": confidence,
            "ms": 12.5,
            "texts": texts,
        }
        for number, (block, slots, committed, confidence) in enumerate(steps)
    ]
    return put(path, [header, start, prefill, *rows, end])
