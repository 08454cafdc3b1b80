"""Who takes part, and what is recorded of the machine and the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from unspool.bench import contestants as module
from unspool.bench.about import about, command_line
from unspool.bench.contestants import PEERS, Contestant, contestants
from unspool.errors import UnknownNameError, UnspoolError, UnsupportedError
from unspool.methods.drafters._datastore import Datastore


def test_plain_comes_first() -> None:
    made = contestants(["auto", "plain@int4", "plain"], ["llama_cpp"], "int8")
    assert made == [
        Contestant("plain", "plain", "int8"),
        Contestant("auto", "auto", "int8"),
        Contestant("plain@int4", "plain", "int4"),
        Contestant("llama_cpp"),
    ]
    assert [one.name for one in contestants(["plain@int8"], [], "int4")] == ["plain", "plain@int8"]


def test_a_prompt_lookup_may_draft_another_number_of_tokens() -> None:
    made = contestants([], ["openvino_genai_prompt_lookup", "openvino_genai_prompt_lookup@8", "llama_cpp"], "int8")[1:]
    assert [one.num_assistant_tokens for one in made] == [5, 8, None]
    assert {one.peer for one in made} == {"openvino_genai_prompt_lookup", "llama_cpp"}
    for wrong in ("llama_cpp@5", "llama_cpp_prompt_lookup@0", "llama_cpp_prompt_lookup@x"):
        with pytest.raises(UnspoolError, match="prompt lookup takes @N"):
            contestants([], [wrong], "int8")


def test_a_method_without_its_draft_model_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="--assistant-model"):
        contestants(["draft_model"], [], "int8")
    assert contestants(["draft_model"], [], "int8", "small")[1].method == "draft_model"


@pytest.mark.parametrize(
    ("methods", "peers", "weights", "message"),
    [
        (["auot"], [], "int8", "unknown method 'auot'; did you mean 'auto'"),
        (["auto@int5"], [], "int8", "unknown weight format 'int5'"),
        ([], [], "int16", "unknown weight format 'int16'"),
        ([], ["lama_cpp"], "int8", "unknown peer 'lama_cpp'; did you mean 'llama_cpp'"),
    ],
)
def test_unknown_names(methods: list[str], peers: list[str], weights: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        contestants(methods, peers, weights)


def test_the_name_of_another_kind() -> None:
    with pytest.raises(UnsupportedError, match="greedy is not a method but of kind acceptance"):
        contestants(["greedy"], [], "int8")


@pytest.mark.parametrize(
    ("methods", "peers", "message"),
    [
        (["auto", "suffix", "auto"], [], "auto is named twice among the methods"),
        (["auto", "auto@int8"], [], "auto@int8 is named twice among the methods"),
        ([], ["llama_cpp", "llama_cpp"], "llama_cpp is named twice among the peers"),
    ],
)
def test_whoever_is_named_twice_is_refused(methods: list[str], peers: list[str], message: str) -> None:
    with pytest.raises(UnspoolError, match=message):
        contestants(methods, peers, "int8")


def test_a_peer_that_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert {name: Contestant(name).missing for name in PEERS} == {
        "transformers": "not installed; pip install unspool",
        "transformers_prompt_lookup": "not installed; pip install unspool",
        "llama_cpp": "not installed; pip install 'unspool[peers]'",
        "llama_cpp_prompt_lookup": "not installed; pip install 'unspool[peers]'",
        "openvino_genai": "not installed; pip install 'unspool[peers]'",
        "openvino_genai_prompt_lookup": "not installed; pip install 'unspool[peers]'",
    }
    assert Contestant("auto", "auto", "int8").missing is None


def test_about_tells_machine_and_versions() -> None:
    told = about()
    assert {"cpu", "physical_cores", "logical_cores", "memory_gb", "system", "load_average_1min"} == set(
        told["machine"]
    )
    assert {"python", "unspool", "openvino", "numpy"} <= set(told["versions"])
    assert told["date"].endswith("+00:00")


def test_the_command_names_files_without_their_directories() -> None:
    given = ["bench", "-m", "/home/me/models/x.gguf", "--suite", "spec-bench:/data/q.jsonl", "--json=~/out/r.json"]
    assert command_line(given) == "unspool bench -m x.gguf --suite spec-bench:q.jsonl --json=r.json"
    kept = ["bench", "-m", "owner/name", "--suite", "data/q.jsonl", "--methods", "auto,plain@int4"]
    assert command_line(kept) == "unspool bench -m owner/name --suite data/q.jsonl --methods auto,plain@int4"


def test_an_at_sign_within_brackets_names_no_weights(tmp_path: Path) -> None:
    Datastore.from_sequences([[0, 1, 2]]).save(tmp_path / "a@b")
    spec = f"rasd(datastore='{tmp_path}/a@b')"
    made = contestants([spec, f"{spec}@int4"], [], "int8")[1:]
    assert [(one.method, one.weights) for one in made] == [(spec, "int8"), (spec, "int4")]
    with pytest.raises(UnspoolError, match="/a@b is not a datastore"):
        contestants(["rasd(datastore='/a@b')"], [], "int8")
