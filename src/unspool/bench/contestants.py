"""The contestants of a benchmark: methods of unspool, optionally with their own weights, and peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from unspool.engine.method import DRAFTER
from unspool.errors import UnknownNameError, UnspoolError


@dataclass(frozen=True)
class Peer:
    """Another engine.

    Attributes:
        module: Python module that must be importable.
        install: the command that installs it.
        lookup: default number of draft tokens of its prompt lookup; None: no prompt lookup.
    """

    module: str
    install: str
    lookup: int | None = None


_EXTRA = "pip install 'unspool[peers]'"

PEERS = {
    "transformers": Peer("transformers", "pip install unspool"),
    "transformers_prompt_lookup": Peer("transformers", "pip install unspool", 10),
    "llama_cpp": Peer("llama_cpp", _EXTRA),
    "llama_cpp_prompt_lookup": Peer("llama_cpp", _EXTRA, 10),
    "openvino_genai": Peer("openvino_genai", _EXTRA),
    "openvino_genai_prompt_lookup": Peer("openvino_genai", _EXTRA, 5),
}
"""Their own plain decoding and, with their defaults, their prompt lookup."""


@dataclass(frozen=True)
class Contestant:
    """A row of the table.

    Attributes:
        name: the method's label, ``label@weights`` if the weights are not the default ones; or a peer's name, with
            ``@N`` if its prompt lookup drafts another number of tokens than its default.
        method, weights: None for a peer, which chooses its own weights.
    """

    name: str
    method: str | None = None
    weights: str | None = None

    @property
    def peer(self) -> str:
        """Name of the peer in ``PEERS``."""
        return self.name.partition("@")[0]

    @property
    def num_assistant_tokens(self) -> int | None:
        """Number of draft tokens of a peer's prompt lookup; None: plain decoding."""
        own = self.name.partition("@")[2]
        return int(own) if own else PEERS[self.peer].lookup

    @property
    def is_peer(self) -> bool:
        return self.method is None

    @property
    def missing(self) -> str | None:
        """Why a peer cannot be started; None if it can."""
        if not self.is_peer or find_spec(PEERS[self.peer].module) is not None:
            return None
        return f"not installed; {PEERS[self.peer].install}"


def contestants(
    names: Sequence[str], peers: Sequence[str], weights: str, assistant: str | None = None
) -> list[Contestant]:
    """Plain decoding first, then the methods, then the peers, each once.

    Args:
        names: specs of drafters, each with ``@weights`` if not with the default weights.
        weights: default weight format.
        assistant: name of the draft model, if there is one.

    Raises:
        UnknownNameError: if a method, peer or weight format does not exist.
        UnspoolError: if a number of tokens is given without prompt lookup, or something is named twice.
        UnsupportedError: if a method needs a draft model and there is none.
    """
    from unspool.backends.openvino.convert import WEIGHTS
    from unspool.engine.method import check_assisted
    from unspool.methods import PLAIN, choose

    chosen: dict[str, Contestant] = {}
    for text in (PLAIN, *names):
        before, at, own = (
            ("", "", "") if text.endswith(")") else text.rpartition("@")
        )  # in brackets @ is part of a text
        chosen_method = choose(before if at else text, DRAFTER)
        check_assisted(chosen_method.row, assistant)
        used = own if at else weights
        if used not in WEIGHTS:
            raise UnknownNameError("weight format", used, WEIGHTS)
        label = chosen_method.label
        name = label if used == weights else f"{label}@{used}"
        if name in chosen and name != PLAIN:  # plain always takes part
            raise UnspoolError(f"{text} is named twice among the methods; name it once")
        chosen[name] = Contestant(name, chosen_method.spec, used)
    for name in peers:
        peer, at, number = name.partition("@")
        if peer not in PEERS:
            raise UnknownNameError("peer", peer, PEERS)
        if at and (PEERS[peer].lookup is None or not number.isdecimal() or int(number) < 1):
            raise UnspoolError(f"unknown peer {name!r}; only a prompt lookup takes @N, its number of draft tokens")
        if name in chosen:
            raise UnspoolError(f"{name} is named twice among the peers; name it once")
        chosen[name] = Contestant(name)
    return list(chosen.values())
