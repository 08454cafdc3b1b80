"""The trained head of ``specdec_pp``: predicts acceptance of a drafted token from the draft model's hidden state.

Residual blocks ``x + SiLU(W x + b)``, then a linear layer to two logits, reject and accept. Runs in float32 with numpy,
so that decoding needs no torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unspool.errors import UnspoolError
from unspool.training.artifact import Artifact

METHOD_NAME, KIND = "specdec_pp", "acceptance head"


class AcceptanceHead:
    """The head stored in an artifact.

    Args:
        artifact: tensors ``blocks.<i>.weight`` [hidden, hidden] and ``blocks.<i>.bias`` [hidden] for each block from 0
            on, ``output.weight`` [2, hidden] and ``output.bias`` [2]; float32.

    Raises:
        UnspoolError: if tensors are missing or have other shapes.
    """

    def __init__(self, artifact: Artifact) -> None:
        blocks = (len(artifact.tensors) - 2) // 2
        self._output = (artifact.tensor("output.weight", 2, None), artifact.tensor("output.bias", 2))
        self.hidden_size = d = self._output[0].shape[1]
        self._blocks = [
            (artifact.tensor(f"blocks.{i}.weight", d, d), artifact.tensor(f"blocks.{i}.bias", d)) for i in range(blocks)
        ]

    def probabilities(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability [n] that the target accepts each of ``n`` drafted tokens.

        Args:
            hidden: [n, hidden size], the draft model's last hidden states with these tokens as input.

        Raises:
            UnspoolError: if the hidden size differs from the head's.
        """
        if hidden.shape[1] != self.hidden_size:
            raise UnspoolError(
                f"the acceptance head was trained for hidden size {self.hidden_size}, but the draft model "
                f"has {hidden.shape[1]}; train one for this model with `unspool train {METHOD_NAME}`"
            )
        x = hidden.astype(np.float32)
        for weight, bias in self._blocks:
            z = x @ weight.T + bias
            x = x + z * _sigmoid(z)
        reject, accept = (x @ self._output[0].T + self._output[1]).T
        return _sigmoid(accept - reject)


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    # With tanh, which does not overflow.
    half = np.float32(0.5)
    result: NDArray[np.float32] = half * np.tanh(half * x) + half
    return result
