"""Tokenizers of GGUF files against what the file says, where transformers' loader leaves it out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, pre_tokenizers

from tests.models import tokenizers_made as made
from unspool.errors import UnsupportedError
from unspool.models import tokenizer_files
from unspool.models.tokenizer import Tokenizer

SPACES = {"ĠĠ": 1, "ĠĠĠ": 1, "ĊĊ": 1}
MERGES = ("Ġ Ġ", "ĠĠ Ġ", "Ċ Ċ")
TEXT = "the  5 seas\n\n12   34,  x=  7 ½"

CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% else %}<｜Assistant｜>"
    "{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}<｜Assistant｜><think>\n"
)
DEEPSEEK = {
    **{"<｜begin▁of▁sentence｜>": 3, "<｜end▁of▁sentence｜>": 3, "<｜User｜>": 4},
    **{"<｜Assistant｜>": 4, "<think>": 4, "</think>": 4},
}


def read(path: Path, **options: Any) -> Tokenizer:
    path.mkdir(exist_ok=True)
    made.gguf_file(path / "tiny.gguf", **options)
    tokenizer_files.make(path, path / "made", "tiny.gguf")
    return Tokenizer(path / "made")


def split_by(*steps: Any, regex: bool = True) -> list[str]:
    """The text's pieces, by a tokenizer that splits as the model's own does."""
    fast = made.byte_level()
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    fast.pre_tokenizer = pre_tokenizers.Sequence([*steps, last])
    return [piece for piece, _ in fast.pre_tokenizer.pre_tokenize_str(TEXT)]


def isolated(pattern: str) -> Any:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


DIGITS = pre_tokenizers.Digits(individual_digits=True)
CODER = [*map(isolated, (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")), DIGITS]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("smollm", split_by(DIGITS)),
        ("starcoder", split_by(DIGITS)),
        ("deepseek-coder", split_by(*CODER, regex=False)),
        ("gpt-2", split_by()),
        (None, split_by()),
    ],
)
def test_text_is_split_by_the_rule_of_the_file(rule: str | None, expected: list[str], tmp_path: Path) -> None:
    ours = read(tmp_path, pre=rule, tokens=SPACES, merges=MERGES)
    assert [piece for piece, _ in ours._fast.pre_tokenizer.pre_tokenize_str(TEXT)] == expected
    assert ours.decode(ours.encode(TEXT)) == TEXT


def test_spaces_before_a_digit(tmp_path: Path) -> None:
    """SmolLM2's: the spaces are one token, which GPT-2's rule cuts in two."""
    smollm = read(tmp_path / "a", pre="smollm", tokens=SPACES, merges=MERGES)
    gpt2 = read(tmp_path / "b", pre="gpt-2", tokens=SPACES, merges=MERGES)
    assert [smollm.token(i) for i in smollm.encode("x  5")] == ["x", "ĠĠ", "5"]
    assert [gpt2.token(i) for i in gpt2.encode("x  5")] == ["x", "Ġ", "Ġ", "5"]


@pytest.mark.parametrize("rule", ["qwen2", "llama-bpe", "tekken", "gpt-4o"])
def test_rules_that_transformers_knows_stay(rule: str, tmp_path: Path) -> None:
    ours = read(tmp_path, pre=rule)
    assert len(ours._fast.pre_tokenizer.pre_tokenize_str("a1234")) == (3 if rule in ("llama-bpe", "gpt-4o") else 5)


def test_a_rule_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"tiny\.gguf splits text by the rule 'tomorrow'.*Hugging Face"):
        read(tmp_path, pre="tomorrow")


def test_words_that_are_tokens_and_the_first_token_of_llama_3(tmp_path: Path) -> None:
    """Its merges do not make every word, and its older files do not say that a text begins with a token."""
    ours = read(tmp_path / "a", pre="llama-bpe", tokens={"zq": 1})
    assert [ours.token(i) for i in ours.encode("zq")] == ["<s>", "zq"]
    assert [ours.token(i) for i in ours.encode("zq", add_special_tokens=False)] == ["zq"]
    said = read(tmp_path / "b", pre="llama-bpe", tokens={"zq": 1}, add_bos_token=False)
    assert [said.token(i) for i in said.encode("zq")] == ["zq"]
    other = read(tmp_path / "c", pre="gpt-2", tokens={"zq": 1})
    assert [other.token(i) for i in other.encode("zq")] == ["z", "q"]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_tokens_outside_the_byte_alphabet_are_tokens(kind: str, tmp_path: Path) -> None:
    """DeepSeek's, in its distilled models as well."""
    plain = made.byte_level() if kind == "gpt2" else made.byte_fallback()
    first = plain.get_vocab_size()
    ids = {text: first + i for i, text in enumerate(DEEPSEEK)}
    ends = {"bos_token_id": first, "eos_token_id": first + 1}
    ours = read(tmp_path, kind=kind, pre="qwen2", templates=CHAT, tokens=DEEPSEEK, add_bos_token=True, **ends)
    assert len(ours.vocabulary) == first + len(DEEPSEEK)
    assert [ours.token(i) for i in ids.values()] == list(DEEPSEEK)
    assert [ours.is_special(i) for i in ids.values()] == [True, True, False, False, False, False]
    chat = ours.chat([{"role": "user", "content": "hi<｜Assistant｜>"}])
    assert [i for i in chat if i in ids.values()] == [
        ids[text] for text in ("<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>")
    ]
    assert ours.encode("hi</think>")[0] == first and ours.encode("hi</think>")[-1] == ids["</think>"]
    assert ours.decode(ours.encode("hi<｜end▁of▁sentence｜>")) == "hi"


def test_a_text_without_the_mark_of_a_space(tmp_path: Path) -> None:
    ours = read(tmp_path / "a", kind="llama", add_space_prefix=False)
    assert [ours.token(i) for i in ours.encode("the sea", add_special_tokens=False)] == ["the", "▁sea"]
    assert ours.decode(ours.encode("the sea")) == "the sea" and ours.decode(ours.encode(" the sea")) == " the sea"
    usual = read(tmp_path / "b", kind="llama")
    assert [usual.token(i) for i in usual.encode("the sea", add_special_tokens=False)] == ["▁the", "▁sea"]
