"""``unspool datastore build`` and ``info`` with a tokenizer of a few words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner, Result

from unspool.backends.toy import ToyModel
from unspool.cli.datastore import app
from unspool.engine.autoregressive import Request, decode
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.errors import UnknownNameError, UnspoolError
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.drafters._datastore import Datastore
from unspool.methods.drafters.suffix import Suffix
from unspool.models import tokenizer as unspool_tokenizer
from unspool.models.tokenizer import vocabulary_fingerprint
from unspool.trace import file as trace_file

WORDS = {word: i for i, word in enumerate(["?", "one", "two", "three", "four"])}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory that has all of a model but weights."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"")
    return directory


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    directory = tmp_path / "corpus"
    (directory / "sub").mkdir(parents=True)
    (directory / ".hidden").mkdir()
    (directory / "b.txt").write_text("one two three")
    (directory / "a.txt").write_text("four four")
    (directory / "sub" / "c").write_text("two one")
    (directory / "empty").write_text("")
    (directory / "image").write_bytes(b"\x89PNG\xff")
    (directory / "zeros").write_bytes(b"one\0two")
    (directory / ".dot").write_text("three")
    (directory / ".hidden" / "d").write_text("three")
    return directory


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def built(path: Path) -> list[list[int]]:
    return [document.tolist() for document in Datastore.open(path).documents()]


def test_a_directory_is_read_file_by_file(model: Path, corpus: Path, tmp_path: Path) -> None:
    """Sorted, files below it too; not the hidden, the empty, and those that are no text."""
    store = tmp_path / "store"
    result = run("build", "-m", model, "-o", store, corpus, corpus / "b.txt")
    assert result.exit_code == 0, result.output
    assert f"{store}: 7 tokens, 3 documents (2 files are not text)\n" in result.output
    assert built(store) == [[4, 4], [1, 2, 3], [2, 1]]
    opened = Datastore.open(store)
    assert (opened.model, opened.vocabulary) == ("tiny", vocabulary_fingerprint(WORDS))


def test_what_generate_wrote_is_taken_token_for_token(model: Path, tmp_path: Path) -> None:
    tokenizer = unspool_tokenizer.Tokenizer(model)
    options = GenerationOptions(max_new_tokens=6)
    events = list(decode(ToyModel.random(vocab_size=5), [Request([1, 2], Suffix(), ExactMatch(), options)]))
    text = [token for event in events if isinstance(event, StepEvent) for token in event.emitted]
    trace, result, other = tmp_path / "run.jsonl", tmp_path / "run.json", tmp_path / "list.json"
    trace_file.write(trace, trace_file.make_header("tiny", [1, 2], tokenizer, 5), events, tokenizer)
    output = {"model": "tiny", "method": "auto", "text": "x", "token_ids": [3, 4, 3], "finish_reason": "length"}
    result.write_text(json.dumps(output))
    other.write_text('["one"]')
    assert run("build", "-m", model, "-o", tmp_path / "store", trace, result, other).exit_code == 0
    assert built(tmp_path / "store") == [[1, 2, *text], [3, 4, 3], [0]]

    for wrong, message in (({"model": "large"}, "written by large"), ({"token_ids": [1.5]}, "not token ids")):
        result.write_text(json.dumps(output | wrong))
        failed = run("build", "-m", model, "-o", tmp_path / "second", result)
        assert isinstance(failed.exception, UnspoolError) and message in str(failed.exception)
        assert not (tmp_path / "second").exists()


def test_mistakes_are_told_and_leave_nothing(model: Path, corpus: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    cases = [
        ((corpus / "image",), "is not UTF-8 text"),
        ((corpus / "zeros",), "is not UTF-8 text"),
        ((corpus / "empty",), "there is no text in"),
        ((corpus / "missing",), "no such file or directory"),
    ]
    for paths, message in cases:
        result = run("build", "-m", model, "-o", store, *paths)
        assert isinstance(result.exception, UnspoolError) and message in str(result.exception)
    result = run("build", "-m", "smolm2-135m", "-o", store, corpus)
    assert isinstance(result.exception, UnknownNameError)
    before = sorted(tmp_path.iterdir())
    result = run("build", "-m", model, "-o", corpus, corpus)
    assert isinstance(result.exception, UnspoolError) and "exists" in str(result.exception)
    assert sorted(tmp_path.iterdir()) == before == [corpus, model]


def test_info(model: Path, corpus: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run("build", "-m", model, "-o", store, corpus)
    lines = run("info", store).stdout.splitlines()
    assert lines[0].startswith(f"{store}: 7 tokens, 3 documents, ") and lines[1].endswith("tokenizer of tiny")
    data = json.loads(run("info", store, "--json").stdout)
    assert (data["tokens"], data["documents"], data["model"]) == (7, 3, "tiny")
    assert isinstance(run("info", corpus).exception, UnspoolError)
