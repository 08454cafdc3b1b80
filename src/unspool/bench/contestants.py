"""Who takes part in a benchmark: methods of unspool, with weights of their own if need be, and peers."""

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
        module: must be importable.
        install: the command that installs it.
        lookup: default number of tokens that its prompt lookup drafts; None: no prompt lookup.
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
"""Their own plain decoding and, with their own defaults, their prompt lookup."""


@dataclass(frozen=True)
class Contestant:
    """A row of the table.

    Attributes:
        name: the method's label, ``label@weights`` where the weights are not the default ones, or a peer's name, with
            ``@N`` where its prompt lookup drafts another number of tokens than its default.
        method, weights: None for a peer, whose weights are its own affair.
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
        """What a peer's prompt lookup drafts; None: it decodes plainly."""
        own = self.name.partition("@")[2]
        return int(own) if own else PEERS[self.peer].lookup

    @property
    def is_peer(self) -> bool:
        return self.method is None

    @property
    def missing(self) -> str | None:
        """Why a peer cannot be started, or None."""
        if not self.is_peer or find_spec(PEERS[self.peer].module) is not None:
            return None
        return f"not installed; {PEERS[self.peer].install}"


def contestants(
    names: Sequence[str], peers: Sequence[str], weights: str, assistant: str | None = None
) -> list[Contestant]:
    """Plain decoding first, then the methods, then the peers, each once.

    Args:
        names: specs of drafters, each with ``@weights`` if it is not to have the default ones.
        weights: the default ones.
        assistant: name of the draft model, if there is one.

    Raises:
        UnknownNameError: for a method, peer or weight format that does not exist.
        UnspoolError: for a number of tokens where there is no prompt lookup, and for what is named twice.
        UnsupportedError: for a method that needs a draft model where there is none.
    """
    from unspool.backends.openvino.convert import WEIGHTS
    from unspool.engine.method import check_assisted
    from unspool.methods import PLAIN, choose

    chosen: dict[str, Contestant] = {}
    for text in (PLAIN, *names):
        before, at, own = ("", "", "") if text.endswith(")") else text.rpartition("@")  # in brackets @ is in a text
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
            raise UnspoolError(f"unknown peer {name!r}; only a prompt lookup takes @N, the number of tokens it drafts")
        if name in chosen:
            raise UnspoolError(f"{name} is named twice among the peers; name it once")
        chosen[name] = Contestant(name)
    return list(chosen.values())
