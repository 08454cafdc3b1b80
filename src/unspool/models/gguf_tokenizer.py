"""Completes transformers' tokenizer of a GGUF with what its loader ignores in the header.

The loader splits text by GPT-2's rule if it does not know the file's rule, ignores tokens whose text is not in the byte
alphabet (DeepSeek's), and adds tokens that the file does not have. Each of these yields a prompt that the model was not
trained on. This module follows llama.cpp.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer as Fast

from unspool.errors import UnsupportedError
from unspool.models.gguf_header import GgufHeader
from unspool.models.tokenizer_files import trimmed

_CONTROL, _USER_DEFINED = 3, 4  # llama.cpp's types of tokens that are matched whole in a text

# Names of the rules that split text before merging, see ``_steps``.
_GPT2 = {"default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "gigachat", "exaone4", "mellum"}
_SINGLE_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Rules under which a word that is a token becomes that token, whatever the merges say. For their vocabularies llama.cpp
# starts a text with the first token unless the file says otherwise.
_WHOLE_WORDS = {
    *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"),
    "tekken",
}


def complete(fast: Fast, header: GgufHeader) -> Fast:
    """The tokenizer with the rules and tokens of the file.

    Raises:
        UnsupportedError: if the file splits text by an unknown rule.
    """
    fields = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in header.fields.items()
        if key.startswith("tokenizer.ggml.")
    }
    size = len(fields["tokens"])
    if max(fast.get_vocab().values(), default=0) >= size:
        fast = Fast.from_str(trimmed(fast, size))
    written = json.loads(fast.to_str())
    if fields.get("model") == "gpt2":
        _split(written, fields, header)
    elif fields.get("model") == "llama" and fields.get("add_space_prefix") is False:
        _without_prefix(written)
    _add_tokens(written, fields)
    return Fast.from_str(json.dumps(written, ensure_ascii=False))


def _split(written: dict[str, Any], fields: dict[str, Any], header: GgufHeader) -> None:
    rule = fields.get("pre", "default")
    steps = _steps(rule)
    if steps:
        alone = rule in _SINGLE_DIGITS
        last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": alone}
        split = [{"type": "Split", "pattern": {"Regex": s}, "behavior": "Isolated", "invert": False} for s in steps]
        written["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*split, last]}
    elif rule not in _GPT2 and (written["pre_tokenizer"] or {}).get("type") != "Sequence":  # nor does transformers
        raise UnsupportedError(
            f"{header.path.name} splits text by the rule {rule!r}, which neither transformers nor unspool knows; use "
            "the model as a directory in Hugging Face layout"
        )
    if rule in _WHOLE_WORDS:
        written["model"]["ignore_merges"] = True
        first = fields.get("bos_token_id")
        if "add_bos_token" not in fields and first is not None:
            _begin_with(written, fields["tokens"][first], first)


def _steps(rule: str) -> tuple[str, ...]:
    if rule in _SINGLE_DIGITS:
        return (r"\p{N}",)
    return {"deepseek-coder": _CODER, "stablelm2": (_QWEN2,)}.get(rule, ())


def _begin_with(written: dict[str, Any], token: str, token_id: int) -> None:
    text, other = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    first = {"SpecialToken": {"id": token, "type_id": 0}}
    written["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, other],
        "special_tokens": {token: {"id": token, "ids": [token_id], "tokens": [token]}},
    }


def _without_prefix(written: dict[str, Any]) -> None:
    """Neither add a space mark before the first word nor strip one from it."""
    if (written["pre_tokenizer"] or {}).get("type") == "Metaspace":
        written["pre_tokenizer"]["prepend_scheme"] = "never"
    normalizer = written["normalizer"] or {}
    if normalizer.get("type") == "Sequence":
        normalizer["normalizers"] = [step for step in normalizer["normalizers"] if step["type"] != "Prepend"]
    decoder = written["decoder"] or {}
    if decoder.get("type") == "Sequence":
        decoder["decoders"] = [step for step in decoder["decoders"] if step["type"] != "Strip"]


def _add_tokens(written: dict[str, Any], fields: dict[str, Any]) -> None:
    """Add the control and user-defined tokens that transformers did not find."""
    vocabulary: dict[str, int] | list[Any] = written["model"]["vocab"]
    if not isinstance(vocabulary, dict):
        return  # Unigram: the index is the id, and transformers keeps the file's texts
    found = {token["id"] for token in written["added_tokens"]}
    pieces = {token_id: piece for piece, token_id in vocabulary.items()}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for token_id, (text, kind) in enumerate(zip(fields["tokens"], fields.get("token_type", []), strict=False)):
        # Runs of spaces are pieces with their own merges, spelled differently.
        if kind not in (_CONTROL, _USER_DEFINED) or token_id in found or not text.strip(" ▁"):
            continue
        if vocabulary.get(text, token_id) != token_id:  # the same text twice: the first is matched
            continue
        if (piece := pieces.get(token_id)) is not None:
            del vocabulary[piece]
        vocabulary[text] = token_id
        written["added_tokens"].append({"id": token_id, "content": text, **flags, "special": kind == _CONTROL})
    written["added_tokens"].sort(key=lambda token: token["id"])
    for name, token in (written["post_processor"] or {}).get("special_tokens", {}).items():
        if name in vocabulary:  # transformers may have given it another id
            token["ids"] = [vocabulary[name]]
