"""The tokenizer's files: made once, compared, made again where they are damaged, and read without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llguidance import LLTokenizer
from tokenizers import Tokenizer as Fast
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.models import tokenizers_made as made
from unspool.backends import prepare
from unspool.errors import UnspoolError
from unspool.models import tokenizer_files
from unspool.models.resolve import ModelSource
from unspool.models.tokenizer import Settings, Tokenizer
from unspool.models.tokenizer_files import SETTINGS, TOKENIZER, DamagedError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
CHAT = {"bos_token": "<s>", "chat_template": made.TEMPLATE}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSource:
    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "cache"))
    where = made.directory(tmp_path / "model", made.byte_level(), CHAT, {"config.json": "{}"})
    return ModelSource("directory", "tiny", where, "key")


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_text(text, encoding="utf-8")


def cut(name: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes((directory / name).read_bytes()[:-40])


def change(directory: Path, **values: Any) -> None:
    written = json.loads((directory / TOKENIZER).read_text("utf-8"))
    written["model"] |= values
    (directory / TOKENIZER).write_text(json.dumps(written), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (write(TOKENIZER, POINTER), r"tokenizer\.json is a Git LFS pointer"),
        (write("tokenizer_config.json", POINTER), r"tokenizer_config\.json is a Git LFS pointer"),
        (write("tokenizer_config.json", "\ufeff{}"), r"tokenizer_config\.json is damaged \(Unexpected UTF-8 BOM"),
        (write("special_tokens_map.json", "{"), r"special_tokens_map\.json is damaged"),
        (write("added_tokens.json", ""), r"added_tokens\.json is damaged"),
        (write("tokenizer_config.json", "[]"), r"cannot read the tokenizer of .*tokenizer\.json"),
        (
            write("tokenizer_config.json", '{"bos_token": 3, "tokenizer_class": "Qwen2Tokenizer"}'),
            "cannot read the tok",
        ),
        (write(TOKENIZER, ""), r"tokenizer\.json is damaged"),
        (write(TOKENIZER, "{}"), r"cannot read the tokenizer of .*tokenizer\.json"),
        (cut(TOKENIZER), r"tokenizer\.json is damaged"),
        (lambda directory: (directory / TOKENIZER).write_bytes(b"\xff\xfe{}"), r"tokenizer\.json is damaged"),
        (lambda directory: (directory / TOKENIZER).unlink(), r"has no tokenizer\.json"),
        (lambda directory: change(directory, merges=[["none", "there"]]), r"cannot read the tokenizer of .*none"),
        (lambda directory: change(directory, type="Other"), r"cannot read the tokenizer of .*tokenizer\.json"),
    ],
)
def test_damaged_files_of_others_are_named(
    source: ModelSource, damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    damage(source.path)
    for act in (lambda: Tokenizer(source.path), lambda: prepare.tokenizer_directory(source)):
        with pytest.raises(UnspoolError, match=message) as caught:
            act()
        assert "\n" not in str(caught.value) and not isinstance(caught.value, DamagedError)
    assert not list((tmp_path / "cache").rglob("*.tmp")) and not list((tmp_path / "cache").rglob(SETTINGS))


def test_a_gguf_whose_merges_name_no_token(tmp_path: Path) -> None:
    file = made.gguf_file(tmp_path / "tiny.gguf")
    text = file.read_bytes()
    assert text.count(b"t h\x04") == 1  # a merge, and the length of the next one
    file.write_bytes(text.replace(b"t h\x04", b"t 9\x04"))
    with pytest.raises(UnspoolError, match=r"cannot read the tokenizer of .*tiny\.gguf"):
        tokenizer_files.make(tmp_path, tmp_path / "made", file.name)


@pytest.mark.parametrize(
    "damage",
    [
        cut(TOKENIZER),
        cut(SETTINGS),
        write(TOKENIZER, ""),
        write(SETTINGS, ""),
        write(SETTINGS, "[]"),
        lambda directory: (directory / TOKENIZER).unlink(),
        lambda directory: (directory / SETTINGS).unlink(),
        lambda directory: Fast.from_str((directory / TOKENIZER).read_text("utf-8")).save(str(directory / TOKENIZER)),
        lambda directory: (directory / SETTINGS).write_text(
            (directory / SETTINGS).read_text("utf-8").replace('"format": 1', '"format": 0')
        ),
    ],
)
def test_damaged_files_of_our_own_are_made_again(source: ModelSource, damage: Callable[[Path], object]) -> None:
    directory = prepare.tokenizer_directory(source)
    whole = {file.name: file.read_bytes() for file in directory.iterdir()}
    damage(directory)
    tokenizer = prepare.read_tokenizer(source, directory)
    assert tokenizer.has_chat_template and tokenizer.settings.special_tokens == {"bos_token": "<s>"}
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == whole


def test_without_a_source_damage_is_told(source: ModelSource) -> None:
    directory = prepare.tokenizer_directory(source)
    cut(TOKENIZER)(directory)
    with pytest.raises(DamagedError, match=rf"tokenizer\.json is not the one that unspool wrote; delete {directory}"):
        Tokenizer(directory)


def test_a_directory_of_any_model_is_read_once(source: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare.directory_tokenizer(source.path)
    with monkeypatch.context() as patched:
        patched.setattr(AutoTokenizer, "from_pretrained", None)
        assert prepare.directory_tokenizer(source.path).vocabulary == first.vocabulary
    made.directory(source.path, made.word_level(), CHAT)
    assert prepare.directory_tokenizer(source.path).vocabulary != first.vocabulary


class Shouting(PreTrainedTokenizerFast):
    """Does more than a file can say."""

    def encode(self, text: str, **options: Any) -> list[int]:
        return super().encode(text.upper(), **options)


class Whispering(PreTrainedTokenizerFast):
    def decode(self, ids: Any, **options: Any) -> str:
        return super().decode(ids, **options).lower()


class Templated(PreTrainedTokenizerFast):
    def apply_chat_template(self, *given: Any, **options: Any) -> Any:
        return super().apply_chat_template(*given, **options)[1:]


@pytest.mark.parametrize(
    ("kind", "message"),
    [(Shouting, "encoding of"), (Whispering, "decoding of"), (Templated, "the chat template of")],
)
def test_a_tokenizer_that_a_file_cannot_say_is_refused(
    source: ModelSource, kind: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda path, **_: kind.from_pretrained(path))
    with pytest.raises(UnspoolError, match=f"{kind.__name__}.*does more than a file.*{message}"):
        prepare.tokenizer_directory(source)


def test_a_slow_tokenizer_is_refused(source: ModelSource) -> None:
    (source.path / "tokenizer_config.json").write_text('{"tokenizer_class": "CanineTokenizer"}')
    with pytest.raises(UnspoolError, match=r"CanineTokenizer.*save a fast tokenizer there"):
        Tokenizer(source.path)


def test_a_start_loads_neither_torch_nor_transformers(source: ModelSource) -> None:
    directory = prepare.tokenizer_directory(source)
    code = (
        f"import sys; from pathlib import Path; from unspool.models.tokenizer import Tokenizer;"
        f"t = Tokenizer(Path({str(directory)!r})); t.decode(t.encode('the sea'));"
        "assert not {'torch', 'transformers'} & set(sys.modules);"
        "t.chat([{'role': 'user', 'content': '<|end|>'}]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("form", made.FORMS)
def test_ids_without_a_logit_are_left_out(form: str) -> None:
    """Grammars read the vocabulary of a model that has fewer logits than its tokenizer has ids."""
    tokenizer = Tokenizer.of(made.FORMS[form]())
    every = tokenizer.vocabulary
    for size in (max(every.values()) + 9, max(every.values()), max(every.values()) - 6):
        vocabulary = Fast.from_str(tokenizer.to_json(size)).get_vocab()
        assert vocabulary == {piece: i for piece, i in every.items() if i < size}
        if form.startswith("byte"):  # the forms that llguidance reads
            assert LLTokenizer(tokenizer.to_json(size), n_vocab=size).vocab_size == size


def test_a_token_that_the_loader_adds_to_a_gguf_is_text(tmp_path: Path) -> None:
    file = made.gguf_file(tmp_path / "tiny.gguf")
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    tokenizer_files.make(tmp_path, tmp_path / "made", file.name)
    ours = Tokenizer(tmp_path / "made")
    assert len(theirs) == len(ours.vocabulary) + 1 and max(ours.encode("<|endoftext|>")) < len(theirs) - 1


def test_in_memory_and_on_disk_are_one(tmp_path: Path) -> None:
    settings = Settings({"bos_token": "<s>"}, made.TEMPLATE, ["<x>"], True, True)
    tokenizer_files.save(made.byte_level(), settings, tmp_path)
    read = Tokenizer(tmp_path)
    assert read.settings == settings and read.encode("<s>") != [read.vocabulary["<s>"]]
