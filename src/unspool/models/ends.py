"""The ids that end a text, from the model's own files: one place for all backends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unspool.errors import UnspoolError
from unspool.models.gguf_header import GgufHeader
from unspool.storage.text_files import read_json

_NAMED = tuple(f"tokenizer.ggml.{end}_token_id" for end in ("eos", "eot", "eom"))  # end of text, of turn, of message
_CONTROL = 3  # llama.cpp's token type for control tokens

# A GGUF names one id of each kind; files of older converters name only the first. llama.cpp finds the others by their
# text (``special_eog_ids``), and every reader of these files must do the same.
_BY_TEXT = {
    *(
        "</s>",
        "<eos>",
        "[EOS]",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<｜end▁of▁sentence｜>",
    ),
    *("<|eot_id|>", "<|eot|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>"),
    *("<end_of_turn>", "<turn|>", "<|tool_response>", "<|eom_id|>", "<end_of_utterance>"),
}
_HARMONY = {"<|return|>", "<|call|>"}  # if these end an answer, <|end|> ends only a part of it


def of_torch(model: Any) -> tuple[int, ...]:
    """Of a transformers model: from its generation configuration, else its configuration."""
    eos = getattr(model.generation_config, "eos_token_id", None)
    if eos is None:
        eos = model.config.get_text_config().eos_token_id
    return tuple(eos) if isinstance(eos, list | tuple) else () if eos is None else (eos,)


def of_gguf(header: GgufHeader) -> tuple[int, ...]:
    """Of a GGUF: llama.cpp's end-of-generation tokens; none if the header names none."""
    tokens = header.fields.get("tokenizer.ggml.tokens", [])
    ends = {header.fields[key] for key in _NAMED if key in header.fields}
    ends = {end for end in ends if 0 <= end < len(tokens)}  # llama.cpp's "none" is the largest number
    if not ends:
        return ()
    kinds = header.fields.get("tokenizer.ggml.token_type", [])
    control = {text: i for i, (text, kind) in enumerate(zip(tokens, kinds, strict=False)) if kind == _CONTROL}
    texts = _BY_TEXT - {"<|end|>"} if control.keys() >= _HARMONY else _BY_TEXT
    return tuple(sorted(ends | {control[text] for text in texts & control.keys()}))


def of_directory(path: Path) -> tuple[int, ...]:
    """Of a directory in Hugging Face layout, without loading the model; none if its files name none.

    Raises:
        UnspoolError: if a file is damaged.
    """
    for name in ("generation_config.json", "config.json"):
        if not (path / name).is_file():
            continue
        data = read_json(path / name)
        eos = data.get("eos_token_id")
        if eos is None:
            eos = (data.get("text_config") or {}).get("eos_token_id")
        ends = eos if isinstance(eos, list) else [] if eos is None else [eos]
        if not all(isinstance(end, int) for end in ends):
            raise UnspoolError(f"{path / name}: eos_token_id must be an id or a list of ids, not {eos!r}")
        if ends:
            return tuple(sorted(set(ends)))
    return ()
