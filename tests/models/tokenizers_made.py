"""Small tokenizers of the forms that models have, and directories and GGUF files that hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Fast

SPECIAL = ("<s>", "</s>", "<|turn|>", "<|end|>")
WORDS = ("the", "sea", "is", "blue", "user", "bot", "yes", "no", "hi")

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>bot\n{% endif %}"
)


def byte_level(prefix_space: bool = False) -> Fast:
    """As SmolLM2's, GPT-2's and Llama 3's: all bytes, and a few merges."""
    spaced = [f"Ġ{word}" for word in WORDS]
    pieces, merges = _merged(sorted(pre_tokenizers.ByteLevel.alphabet()), [*WORDS, *spaced])
    fast = Fast(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    fast.decoder = decoders.ByteLevel()
    fast.post_processor = processors.ByteLevel(trim_offsets=False)
    fast.add_special_tokens(list(SPECIAL))
    return fast


def byte_fallback(strip: bool = True) -> Fast:
    """As Llama 2's (with ``strip``) and Gemma's: marks for spaces, and a token for each byte without a piece."""
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz.,<>|_"]
    start = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    pieces, merges = _merged([*start, *letters], [*WORDS, *(f"▁{word}" for word in WORDS), "▁▁"])
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    fast = Fast(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    mark = normalizers.Replace(" ", "▁")
    fast.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), mark]) if strip else mark
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    fast.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)
    fast.add_special_tokens(["<unk>", *SPECIAL])
    fast.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return fast


def unigram(scheme: str = "always") -> Fast:
    """As T5's and XGLM's: pieces with scores, Metaspace."""
    pieces = ["<unk>", "<s>", "</s>", "▁", *(f"▁{word}" for word in WORDS), *"abcdefghijklmnopqrstuvwxyz.,!?'<>|\n"]
    fast = Fast(models.Unigram([(piece, -float(i % 7)) for i, piece in enumerate(pieces)], 0, False))
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    fast.decoder = decoders.Metaspace(prepend_scheme=scheme)
    fast.add_special_tokens(["<unk>", *SPECIAL])
    return fast


def word_piece() -> Fast:
    """As BERT's: lower case, ``##`` within words."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"abcdefghijklmnopqrstuvwxyz.,!?'"]
    pieces += [f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    fast = Fast(models.WordPiece(vocabulary, unk_token="[UNK]"))
    fast.normalizer, fast.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    fast.decoder = decoders.WordPiece(cleanup=False)
    fast.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast.add_special_tokens([*pieces[:5], *SPECIAL])
    return fast


def word_level() -> Fast:
    """Words, and no decoder."""
    fast = Fast(models.WordLevel({word: i for i, word in enumerate(("[UNK]", *WORDS))}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.add_special_tokens(["[UNK]", *SPECIAL])
    return fast


def suffixed() -> Fast:
    """As CLIP's and GPT's: a mark at the end of each word."""
    ends = [f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz.,"]
    pieces, merges = ["[UNK]", *"abcdefghijklmnopqrstuvwxyz.,", *ends, "is</w>", "th", "the</w>"], []
    merges = [("i", "s</w>"), ("t", "h"), ("th", "e</w>")]
    fast = Fast(models.BPE({p: i for i, p in enumerate(pieces)}, merges, unk_token="[UNK]", end_of_word_suffix="</w>"))
    fast.normalizer, fast.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    fast.decoder = decoders.BPEDecoder()
    fast.add_special_tokens(["[UNK]", *SPECIAL])
    return fast


FORMS = {
    "byte level": byte_level,
    "byte fallback": byte_fallback,
    "byte fallback, no strip": lambda: byte_fallback(False),
    "unigram": unigram,
    "unigram, first": lambda: unigram("first"),
    "word piece": word_piece,
    "word level": word_level,
    "suffixed": suffixed,
}


def with_tokens(fast: Fast, *tokens: AddedToken | str) -> Fast:
    """With added tokens that are not special."""
    fast.add_tokens(list(tokens))
    return fast


def directory(
    where: Path,
    fast: Fast,
    config: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    **changes: Any,
) -> Path:
    """A directory in Hugging Face layout; ``changes`` are fields of ``tokenizer.json``."""
    where.mkdir(parents=True, exist_ok=True)
    text = json.dumps(json.loads(fast.to_str()) | changes)
    (where / "tokenizer.json").write_text(text, encoding="utf-8")
    if config is not None:
        written = {"tokenizer_class": "PreTrainedTokenizerFast"} | dict(config)
        (where / "tokenizer_config.json").write_text(json.dumps(written), encoding="utf-8")
    for name, content in (files or {}).items():
        (where / name).parent.mkdir(exist_ok=True)
        (where / name).write_text(content, encoding="utf-8")
    return where


def gguf_file(
    path: Path,
    kind: str = "gpt2",
    templates: Any = None,
    pre: str | None = "default",
    tokens: Mapping[str, int] | None = None,
    merges: Sequence[str] = (),
    **values: Any,
) -> Path:
    """A GGUF file that holds a tokenizer and no weights.

    Args:
        kind: ``gpt2`` or ``llama``.
        templates: the chat template, or several as a list of ``{"name", "template"}``.
        pre: name of the rule by which ``gpt2`` splits text.
        tokens: more tokens, with llama.cpp's kind of each.
        merges: more of them, for ``gpt2``.
        values: more of the header, by key behind ``tokenizer.ggml.``.
    """
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    fast = byte_level() if kind == "gpt2" else byte_fallback()
    pieces = [piece for piece, _ in sorted(fast.get_vocab().items(), key=lambda item: item[1])]
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    kinds = [3 if piece in (*SPECIAL, "<unk>") else 1 for piece in pieces] + list((tokens or {}).values())
    pieces += list(tokens or {})
    writer.add_vocab_size(len(pieces))
    writer.add_tokenizer_model(kind)
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    if kind == "gpt2":
        if pre is not None:
            writer.add_tokenizer_pre(pre)
        known = json.loads(fast.to_str())["model"]["merges"]
        writer.add_token_merges([*(" ".join(m) if isinstance(m, list) else m for m in known), *merges])
    else:
        writer.add_token_scores([float(-i) for i in range(len(pieces))])
    writer.add_bos_token_id(pieces.index("<s>"))
    writer.add_eos_token_id(pieces.index("</s>"))
    if templates is not None:
        writer.add_chat_template(templates)
    for key, value in values.items():
        name = f"tokenizer.ggml.{key}"
        writer.add_bool(name, value) if isinstance(value, bool) else writer.add_uint32(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _merged(start: list[str], words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """A vocabulary that builds the words letter by letter."""
    pieces, merges = list(start), []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces:
                pieces.append(word[:end])
                merges.append((word[: end - 1], word[end - 1]))
    return pieces, merges
