"""The trained head of ``specdec_pp``: how likely the target accepts a drafted token, from the draft's hidden state.

Residual blocks ``x + SiLU(W x + b)``, then a linear layer to two logits, reject and accept. Runs in float32 with numpy,
so that decoding needs no torch. One safetensors file holds the weights and, as metadata, what they were trained for.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unspool.errors import UnspoolError

FILE_NAME = "acceptance_head.safetensors"

_TRAIN = "train one with `unspool train acceptance-head`"


class AcceptanceHead:
    """The head's weights and what they belong to.

    Args:
        tensors: ``blocks.<i>.weight`` [hidden, hidden] and ``blocks.<i>.bias`` [hidden] for each block from 0 on,
            ``output.weight`` [2, hidden] and ``output.bias`` [2]; float32.
        about: what it was trained for and how, plain data: ``draft`` and ``target`` are objects with ``name``, ``key``
            and ``vocab_size``.

    Raises:
        UnspoolError: if tensors are missing or have other shapes.
    """

    def __init__(self, tensors: dict[str, NDArray[np.float32]], about: dict[str, Any]) -> None:
        self.tensors = tensors
        self.about = about
        blocks = (len(tensors) - 2) // 2
        try:
            self._blocks = [(tensors[f"blocks.{i}.weight"], tensors[f"blocks.{i}.bias"]) for i in range(blocks)]
            self._output = (tensors["output.weight"], tensors["output.bias"])
            self.hidden_size = self._output[0].shape[1]
            d = self.hidden_size
            shapes = {(weight.shape, bias.shape) for weight, bias in self._blocks} | {((d, d), (d,))}
            fits = len(shapes) == 1 and self._output[0].shape == (2, d) and self._output[1].shape == (2,)
            self._vocab_sizes = (int(about["draft"]["vocab_size"]), int(about["target"]["vocab_size"]))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UnspoolError(f"this is not an acceptance head ({error!r}); {_TRAIN}") from error
        if not fits:
            raise UnspoolError(f"this is not an acceptance head (shapes do not fit together); {_TRAIN}")

    def probabilities(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability [n] that the target accepts each of ``n`` drafted tokens.

        Args:
            hidden: [n, hidden size], the draft model's last hidden states with these tokens as input.

        Raises:
            UnspoolError: if the hidden size is that of another model.
        """
        if hidden.shape[1] != self.hidden_size:
            raise UnspoolError(
                f"the acceptance head was trained for hidden states of {self.hidden_size} numbers and the draft model "
                f"has {hidden.shape[1]}; {_TRAIN} for this model"
            )
        x = hidden.astype(np.float32)
        for weight, bias in self._blocks:
            z = x @ weight.T + bias
            x = x + z * _sigmoid(z)
        reject, accept = (x @ self._output[0].T + self._output[1]).T
        return _sigmoid(accept - reject)

    def check(self, draft_vocab_size: int, target_vocab_size: int) -> None:
        """Refuse models that it was not trained for, as far as their vocabularies tell.

        A head of the wrong model costs speed, never text.

        Raises:
            UnspoolError: naming the pair it was trained for.
        """
        if self._vocab_sizes != (draft_vocab_size, target_vocab_size):
            pair = " drafting for ".join(str(self.about[whose].get("name")) for whose in ("draft", "target"))
            raise UnspoolError(f"the acceptance head was trained for {pair}; {_TRAIN} for these models")

    def save(self, path: Path) -> None:
        """Write the file; one of that name is replaced in one step."""
        from safetensors.numpy import save_file

        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            save_file(self.tensors, part, metadata={"about": json.dumps(self.about)})
            part.replace(path)
        except OSError as error:
            raise UnspoolError(f"cannot write the acceptance head to {path}: {error.strerror or error}") from error
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> AcceptanceHead:
        """Read a file that ``save`` wrote, or the one of its usual name in a directory.

        Raises:
            UnspoolError: if it cannot be read or is something else.
        """
        path = path / FILE_NAME if path.is_dir() else path
        try:
            stat = path.stat()
            return _load(path, stat.st_ctime_ns, stat.st_ino)
        except OSError as error:
            raise UnspoolError(
                f"cannot read the acceptance head {path}: {error.strerror or error}; {_TRAIN}"
            ) from error


@lru_cache(maxsize=4)  # a drafter is built for every request
def _load(path: Path, changed: int, inode: int) -> AcceptanceHead:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, KeyError, ValueError) as error:
        raise UnspoolError(f"{path} is not an acceptance head; {_TRAIN}") from error
    return AcceptanceHead(tensors, about)


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    # By tanh, which does not overflow.
    half = np.float32(0.5)
    result: NDArray[np.float32] = half * np.tanh(half * x) + half
    return result
