"""Who takes part in a benchmark: methods of unspool, with weights of their own if need be, and peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from unspool.errors import UnknownNameError

PLAIN = "plain"
"""What all others are compared with: plain decoding with the default weights."""


@dataclass(frozen=True)
class Peer:
    """Another engine: the module that must be importable, and the command that installs it."""

    module: str
    install: str


PEERS = {
    "transformers": Peer("transformers", "pip install unspool"),
    "llama_cpp": Peer("llama_cpp", "pip install 'unspool[peers]'"),
    "openvino_genai": Peer("openvino_genai", "pip install 'unspool[peers]'"),
}


@dataclass(frozen=True)
class Contestant:
    """A row of the table.

    Attributes:
        name: ``method``, ``method@weights`` where the weights are not the default ones, or a peer's name.
        method, weights: None for a peer, whose weights are its own affair.
    """

    name: str
    method: str | None = None
    weights: str | None = None

    @property
    def is_peer(self) -> bool:
        return self.method is None

    @property
    def missing(self) -> str | None:
        """Why a peer cannot be started, or None."""
        if not self.is_peer or find_spec(PEERS[self.name].module) is not None:
            return None
        return f"not installed; {PEERS[self.name].install}"


def contestants(
    names: Sequence[str], peers: Sequence[str], weights: str, assistant: str | None = None
) -> list[Contestant]:
    """Plain decoding first, then the methods, then the peers, each once.

    Args:
        names: of drafters, each with ``@weights`` if it is not to have the default ones.
        weights: the default ones.
        assistant: name of the draft model, if there is one.

    Raises:
        UnknownNameError: for a method, peer or weight format that does not exist.
        UnsupportedError: for a method that needs a draft model where there is none.
    """
    from unspool.backends.openvino_convert import WEIGHTS
    from unspool.methods import check_assisted, find

    chosen: dict[str, Contestant] = {}
    for text in (PLAIN, *names):
        method, _, own = text.partition("@")
        check_assisted(find(method, "drafter"), assistant)
        used = own or weights
        if used not in WEIGHTS:
            raise UnknownNameError("weight format", used, WEIGHTS)
        name = method if used == weights else f"{method}@{used}"
        chosen[name] = Contestant(name, method, used)
    for name in peers:
        if name not in PEERS:
            raise UnknownNameError("peer", name, PEERS)
        chosen[name] = Contestant(name)
    return list(chosen.values())
