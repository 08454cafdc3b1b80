"""Datastores: what a suffix array finds, against a search by hand; the files, whole or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unspool.engine.contracts import Memory
from unspool.errors import UnspoolError
from unspool.methods.drafters import _datastore as module
from unspool.methods.drafters._datastore import Datastore
from unspool.methods.drafters._datastore import files as datastore_files
from unspool.methods.drafters._datastore.suffix_array import SEPARATOR, occurrences, sort_suffixes
from unspool.models.tokenizer import vocabulary_fingerprint
from unspool.storage import cache as store


def documents(seed: int, vocab_size: int = 3, count: int = 6, most: int = 40) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(vocab_size, size=rng.integers(1, most)).tolist() for _ in range(count)]


def by_hand(corpus: list[list[int]], text: list[int], length: int) -> tuple[int, list[list[int]]]:
    """The longest suffix of 16 to 2 tokens that occurs in one document, and all its continuations."""
    for matched in range(min(16, len(text)), 1, -1):
        rows = [
            (document[at + matched :][:length] + [SEPARATOR] * length)[:length]
            for document in corpus
            for at in range(len(document) - matched + 1)
            if document[at : at + matched] == text[-matched:]
        ]
        if rows:
            return matched, sorted(rows)
    return 0, []


@pytest.mark.parametrize("depth", [1, 2, 16])
@pytest.mark.parametrize("size", [0, 1, 2, 300])
def test_suffixes_are_in_order(depth: int, size: int) -> None:
    tokens = np.random.default_rng(size).integers(-1, 2, size).astype(np.int32)
    text = tokens.tolist()
    wanted = sorted(range(size), key=lambda position: (text[position : position + depth], position))
    done: list[float] = []
    assert sort_suffixes(tokens, depth, lambda what, at, of: done.append(at / of)).tolist() == wanted
    assert done == sorted(done) and done[-1] == 1.0


def test_occurrences_are_all_and_only_those() -> None:
    tokens = np.random.default_rng(1).integers(0, 3, 200).astype(np.int32)
    suffixes = sort_suffixes(tokens, 8)
    text = tokens.tolist()
    for query in ([0], [2, 1], [0, 1, 2], text[50:58], text[-3:], [2, 2, 2, 2, 2, 2, 2, 2], [7]):
        low, high = occurrences(tokens, suffixes, query)
        wanted = [at for at in range(200) if text[at : at + len(query)] == query]
        assert sorted(suffixes[low:high].tolist()) == wanted


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_suffix_and_what_followed_it(seed: int) -> None:
    """Also of texts that go on beyond a document into the next one: no match, no continuation crosses the border."""
    corpus = documents(seed)
    made = Datastore.from_sequences(corpus)
    rng = np.random.default_rng(100 + seed)
    texts = [rng.integers(3, size=rng.integers(1, 25)).tolist() for _ in range(60)]
    texts += [[*corpus[i][-5:], *corpus[i + 1][:k]] for i in range(5) for k in range(4)]
    texts += [document[:k] for document in corpus for k in (1, 17, 25)]
    found = set()
    for text in texts:
        matched, rows = made.retrieve(text, 4)
        assert (matched, sorted(rows.tolist())) == by_hand(corpus, text, 4)
        found.add(matched)
    assert {0, 2, 3, 16} <= found


def test_of_very_many_occurrences_some_at_even_distances_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares stay: three of four occurrences go on with 5."""
    monkeypatch.setattr(module, "SAMPLED", 40)
    made = Datastore.from_sequences([[1, 2, 5 if i % 4 else 6] for i in range(400)])
    _, rows = made.retrieve([1, 2], 1)
    assert len(rows) == 40 and np.count_nonzero(rows == 5) == 30


def test_documents_come_back_and_empty_ones_do_not() -> None:
    corpus = documents(3)
    made = Datastore.from_sequences([corpus[0], [], *corpus[1:]])
    assert [document.tolist() for document in made.documents()] == corpus
    assert (len(made), made.count) == (sum(map(len, corpus)), len(corpus))
    assert list(Datastore().documents()) == [] and Datastore().retrieve([1, 2, 3], 4)[0] == 0


def test_ids_are_no_separators() -> None:
    with pytest.raises(UnspoolError, match="negative"):
        Datastore.from_sequences([[1, SEPARATOR, 2]])


def test_saved_and_opened(tmp_path: Path) -> None:
    corpus = documents(4)
    made = Datastore.from_sequences(corpus, vocabulary="abc", model="tiny")
    assert isinstance(made, Memory)
    made.save(tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    opened = Datastore.open(tmp_path / "store")
    assert [document.tolist() for document in opened.documents()] == corpus
    assert (opened.vocabulary, opened.model, opened.path) == ("abc", "tiny", tmp_path / "store")
    for text in corpus:
        for array, other in zip(made.retrieve(text[:9], 5), opened.retrieve(text[:9], 5), strict=True):
            np.testing.assert_array_equal(array, other)
    opened.reset()
    assert len(opened) == 0 and (tmp_path / "store").is_dir()
    opened.save(tmp_path / "empty")
    assert len(Datastore.open(tmp_path / "empty")) == 0


def test_nothing_is_read_before_it_is_looked_at(tmp_path: Path) -> None:
    Datastore.from_sequences(documents(4)).save(tmp_path / "store")
    opened = Datastore.open(tmp_path / "store")
    assert not any(array.flags.owndata for array in (opened._tokens, opened._starts, opened._suffixes))
    assert isinstance(opened._tokens.base, np.memmap)


def test_what_is_stopped_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(datastore_files.json, "dumps", stopped)  # after the arrays are written
    with pytest.raises(KeyboardInterrupt):
        Datastore.from_sequences([[1, 2, 3]]).save(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_existing_directories_are_not_written_to(tmp_path: Path) -> None:
    made = Datastore.from_sequences([[1, 2, 3]])
    with pytest.raises(UnspoolError, match="exists"):
        made.save(tmp_path)
    with pytest.raises(UnspoolError, match="no directory"):
        made.save(tmp_path / "missing" / "store")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "not a datastore"),
        ("header is text", "header.json is missing or damaged"),
        ("header is of something else", "not a datastore"),
        ("header lacks a field", "header.json is missing or damaged"),
        ("version", "format 2, but this unspool reads format 1; rebuild it"),
        ("tokens.npy cut", "tokens.npy is missing or damaged"),
        ("suffixes.npy cut", "suffixes.npy is missing or damaged"),
        ("starts.npy gone", "starts.npy is missing or damaged"),
        ("suffixes.npy of another", "suffixes.npy is missing or damaged"),
        ("tokens.npy of floats", "tokens.npy is missing or damaged"),
    ],
)
def test_what_is_no_datastore_is_refused(tmp_path: Path, damage: str, message: str) -> None:
    path = tmp_path / "store"
    made = Datastore.from_sequences([[1, 2, 3]])
    made.save(path)
    header = json.loads((path / "header.json").read_text())
    file = path / damage.split(maxsplit=1)[0]
    if damage == "missing":
        (path / "header.json").unlink()
    elif damage == "header is text":
        (path / "header.json").write_text("{")
    elif damage.startswith("header"):
        header.pop("sizes") if "lacks" in damage else header.update(kind="other")
        (path / "header.json").write_text(json.dumps(header))
    elif damage == "version":
        (path / "header.json").write_text(json.dumps(header | {"version": 2}))
    elif damage.endswith("cut"):
        file.write_bytes(file.read_bytes()[:-1])
    elif damage.endswith("gone"):
        file.unlink()
    elif damage.endswith("of another"):
        np.save(file, np.arange(3, dtype=np.int32))
    else:
        np.save(file, np.zeros(4))
    with pytest.raises(UnspoolError, match=message):
        made.load(path)
    assert [document.tolist() for document in made.documents()] == [[1, 2, 3]], "a failed load changes nothing"


def test_models_of_another_vocabulary_are_refused() -> None:
    names = {"a": 0, "b": 1}
    made = Datastore.from_sequences([[1, 5, 3]], vocabulary_fingerprint(names), "tiny")
    made.check(6, vocabulary_fingerprint({"b": 1, "a": 0}))
    made.check(6)
    for vocab_size, vocabulary in ((6, vocabulary_fingerprint({"a": 1, "b": 0})), (5, ""), (5, made.vocabulary)):
        with pytest.raises(UnspoolError, match=r"tokenizer of tiny.*rebuild it"):
            made.check(vocab_size, vocabulary)
    Datastore().check(1, "any")


def test_files_are_written_through_the_cache_s_own_way(tmp_path: Path) -> None:
    """A temporary of a process that was killed is swept away with the next build there."""
    dead = tmp_path / f"old.{store._host()}.999999999.0123abcd.tmp"
    dead.mkdir()
    Datastore.from_sequences([[1, 2]]).save(tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
