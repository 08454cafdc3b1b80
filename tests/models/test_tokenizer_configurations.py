"""Tokenizers of many configurations: ids, templates, special tokens and texts are those of transformers."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, normalizers, processors
from transformers import AutoTokenizer

from tests.models import tokenizers_made as made
from unspool.models import tokenizer_files
from unspool.models.tokenizer import Tokenizer

CUT = {"truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}}
PADDED = {
    "padding": {
        "strategy": {"Fixed": 16},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<s>",
    }
}
BASE = {"bos_token": "<s>", "eos_token": "</s>"}
CHAT = BASE | {"chat_template": made.TEMPLATE}
SHOUT = "{{ bos_token }}{% for m in messages %}{{ m.role | upper }}: {{ m.content }} {% endfor %}"
NAMED = [{"name": "tool_use", "template": "tools! " + SHOUT}, {"name": "default", "template": made.TEMPLATE}]
TOKENS = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}|{{ pic_token }}|{{ cls_token is defined }}"
TOKENS += "{% for m in messages %}{{ m.content }}{% endfor %}"
SEEN = {"chat_template": TOKENS}


def added(text: str, token_id: int, **flags: bool) -> dict[str, Any]:
    """As ``added_tokens_decoder`` holds it."""
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    return {str(token_id): {"content": text} | plain | flags}


def template(single: str) -> Callable[[Any], Any]:
    def changed(fast: Any) -> Any:
        ids = [(token, fast.token_to_id(token)) for token in ("<s>", "</s>")]
        fast.post_processor = processors.TemplateProcessing(single=single, pair="$A $B", special_tokens=ids)
        return fast

    return changed


def normalised(fast: Any, normalizer: Any) -> Any:
    fast.normalizer = normalizer
    return fast


B, F, U, P, W = made.byte_level, made.byte_fallback, made.unigram, made.word_piece, made.word_level
SIZE = B().get_vocab_size()
ADDED = AddedToken("<x>", lstrip=True, rstrip=True, normalized=False)

# Name, tokenizer, tokenizer_config.json, other files, fields of tokenizer.json.
CONFIGURATIONS: dict[str, tuple[Any, ...]] = {
    "byte level alone": (B(), None),
    "byte level, chat": (B(), CHAT),
    "cut by tokenizer.json": (B(), CHAT, {}, CUT),
    "padded by tokenizer.json": (B(), CHAT, {}, PADDED),
    "cut, and model_max_length": (F(), CHAT | {"model_max_length": 3}, {}, CUT),
    "prefix space": (made.byte_level(True), CHAT),
    "prefix space by the config": (B(), CHAT | {"add_prefix_space": True}),
    "beginning and end are added": (template("<s> $A </s>")(B()), CHAT),
    "add_bos_token": (B(), CHAT | {"add_bos_token": True}),
    "add_bos_token false": (F(), CHAT | {"add_bos_token": False}),
    "byte fallback": (F(), CHAT),
    "byte fallback without strip": (F(False), CHAT),
    "legacy": (F(), CHAT | {"legacy": False, "sp_model_kwargs": {}}),
    "byte fallback as LlamaTokenizer": (F(), CHAT | {"tokenizer_class": "LlamaTokenizer"}),
    "byte level as GPT2Tokenizer": (B(), CHAT | {"tokenizer_class": "GPT2TokenizerFast"}),
    "byte level as Qwen2Tokenizer": (B(), CHAT | {"tokenizer_class": "Qwen2Tokenizer"}),
    "unigram": (U(), CHAT),
    "unigram, first": (U("first"), CHAT),
    "unigram, never": (U("never"), CHAT),
    "word piece": (P(), CHAT),
    "word piece, cleaned up": (P(), CHAT | {"clean_up_tokenization_spaces": True}),
    "byte level, not cleaned up": (B(), CHAT | {"clean_up_tokenization_spaces": True}),
    "byte level, cleaned up all the same": (
        B(),
        CHAT
        | {
            "clean_up_tokenization_spaces": True,
            "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True,
        },
    ),
    "word level": (W(), CHAT),
    "word level, cleaned up": (W(), CHAT | {"clean_up_tokenization_spaces": True}),
    "suffixed": (made.suffixed(), CHAT),
    "null": (B(), SEEN | {"bos_token": None, "eos_token": "</s>"}),
    "tokens of the map alone": (B(), SEEN, {"special_tokens_map.json": '{"bos_token": "<s>", "pad_token": "</s>"}'}),
    "tokens of the map as objects": (
        B(),
        SEEN,
        {"special_tokens_map.json": '{"bos_token": {"content": "<new>", "lstrip": true}}'},
    ),
    "map and config": (B(), SEEN | BASE, {"special_tokens_map.json": '{"bos_token": "</s>"}'}),
    "tokens as objects": (B(), SEEN | {"bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": True}}),
    "named extra tokens": (B(), SEEN | BASE | {"extra_special_tokens": {"pic_token": "<pic>"}}),
    "extra tokens": (B(), SEEN | BASE | {"extra_special_tokens": ["<pic>", "<|turn|>"]}),
    "additional tokens": (B(), SEEN | BASE | {"additional_special_tokens": ["<pic>", "<new>"]}),
    "a token by a name of its own": (B(), SEEN | BASE | {"pic_token": "<pic>", "add_bos_token": True}),
    "tokens of added_tokens_decoder alone": (
        B(),
        SEEN | BASE | {"added_tokens_decoder": added("<a>", SIZE) | added("<b>", SIZE + 1, special=False)},
    ),
    "added_tokens.json": (B(), SEEN | BASE, {"added_tokens.json": f'{{"<a>": {SIZE}, "<b>": {SIZE + 1}}}'}),
    "split_special_tokens": (B(), CHAT | {"split_special_tokens": True}),
    "named templates": (B(), BASE | {"chat_template": NAMED}),
    "named templates as a dictionary": (B(), BASE | {"chat_template": {"default": SHOUT, "rag": TOKENS}}),
    "named templates and none by default": (B(), BASE | {"chat_template": NAMED[:1]}),
    "chat_template.jinja": (B(), BASE | {"chat_template": "not this"}, {"chat_template.jinja": made.TEMPLATE}),
    "templates in files": (
        B(),
        BASE,
        {"chat_template.jinja": made.TEMPLATE, "additional_chat_templates/tool_use.jinja": SHOUT},
    ),
    "a template that wants turns": (
        F(),
        BASE | {"chat_template": "{% if messages|length % 2 == 0 %}{{ raise_exception('odd') }}{% endif %}" + SHOUT},
    ),
    "spaces around an added token": (made.with_tokens(B(), ADDED, "  ", "zz"), CHAT),
    "spaces around, byte fallback": (made.with_tokens(F(), ADDED, AddedToken("Q", single_word=True)), CHAT),
    "an added token that is normalised": (
        made.with_tokens(normalised(B(), normalizers.Lowercase()), AddedToken("<Y>", normalized=True)),
        CHAT,
    ),
    "compatible forms": (normalised(B(), normalizers.NFKC()), CHAT),
    "other padding side and a tokenizer class of the config": (
        B(),
        BASE | {"padding_side": "left", "pad_token": "</s>"},
        {"config.json": '{"model_type": "llama", "vocab_size": 400}', "chat_template.jinja": SHOUT},
    ),
}

TEXTS = (
    "please: the sea is blue, isn't it ?",
    " the  sea\n\nis <s>blue</s> <|turn|>user <x> zz <a><b> <pic> <Y> <y> Q",
    "déjà 日本 😀 <|end|>\ttab    four",
    "",
)
CHATS = (
    [{"role": "user", "content": "hi"}],
    [{"role": "user", "content": " if a < b | c: <p>#_-</p> [INST] \n\n"}],
    [
        {"role": "system", "content": " the sea "},
        {"role": "user", "content": "is it blue, 日本 ?\n"},
        {"role": "assistant", "content": "yes", "reasoning_content": None},
        {"role": "user", "content": "no 😀"},
    ],
)


def said(what: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        return what(*args, **options)
    except Exception:
        return "refused"


def assert_same(ours: Tokenizer, theirs: Any) -> None:
    assert ours.vocabulary == theirs.get_vocab()
    assert ours.settings.special_tokens == theirs.special_tokens_map
    assert ours.has_chat_template is (theirs.chat_template is not None)
    for text in TEXTS:
        for special in (True, False):
            assert said(ours.encode, text, special) == said(theirs.encode, text, add_special_tokens=special)
    rng, size = random.Random(0), max(ours.vocabulary.values()) + 3
    for n in (1, 2, 7, 40):
        ids = [rng.randrange(size) for _ in range(n)]
        for skip in (True, False):
            assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)
    for chat in CHATS:
        rendered = said(theirs.apply_chat_template, chat, tokenize=False, add_generation_prompt=True)
        ids = said(theirs.apply_chat_template, chat, add_generation_prompt=True, return_dict=False)
        assert said(ours.chat, chat) == ids
        if rendered != "refused":
            assert ours._chat._render(chat) == rendered


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_ids_templates_and_texts_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    fast, config, *rest = CONFIGURATIONS[name]
    files, changes = [*rest, {}, {}][:2]
    where = made.directory(tmp_path / "model", fast, config, files, **changes)
    theirs = AutoTokenizer.from_pretrained(where, local_files_only=True)
    tokenizer_files.make(where, tmp_path)
    assert_same(Tokenizer(tmp_path), theirs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"templates": made.TEMPLATE},
        {"templates": NAMED},
        {"templates": made.TEMPLATE, "add_bos_token": True, "add_eos_token": True},
        {"kind": "llama", "templates": made.TEMPLATE},
        {"kind": "llama", "add_bos_token": False},
        {"kind": "llama", "unknown_token_id": 0, "padding_token_id": 2, "templates": TOKENS},
    ],
    ids=str,
)
def test_those_of_gguf_files_too(options: dict[str, Any], tmp_path: Path) -> None:
    file = made.gguf_file(tmp_path / "tiny.gguf", **options)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name, local_files_only=True)
    tokenizer_files.make(tmp_path, tmp_path / "made", file.name)
    ours = Tokenizer(tmp_path / "made")
    assert ours.has_chat_template is (theirs.chat_template is not None)
    if len(theirs) == len(ours.vocabulary):
        assert_same(ours, theirs)
    else:  # transformers adds <|endoftext|>; nothing else differs
        assert set(theirs.get_vocab()) - set(ours.vocabulary) == {"<|endoftext|>"}
        ids = list(range(len(ours.vocabulary)))
        assert ours.decode(ids, False) == theirs.decode(ids)
        assert ours.encode("the sea <s> is") == theirs.encode("the sea <s> is")
        assert "<|endoftext|>" in ours.decode(ours.encode("the <|endoftext|>"))
