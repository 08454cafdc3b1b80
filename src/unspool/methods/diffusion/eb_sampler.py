"""Accelerated Sampling from Masked Diffusion Models via Entropy Bounded Unmasking (2025).

Tokens that are committed together are drawn as if they were independent. The error of this is bounded: the entropies of
k slots minus the largest of them bound the mutual information among the slots from above. So the slots of lowest
entropy are committed, as many as keep that difference within gamma, and always at least the lowest.

Guarantee: lossy; a gamma of infinity commits a block at once. A gamma of 0 is one token per step, except that slots of
zero entropy are free, as they depend on nothing.

Choices: slots are ordered by entropy, one of the error proxies that the paper tries; the difference is then the sum
over all but the last slot. Entropy is that of the whole distribution, in nats, without temperature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unspool.engine.canvas import BlockState, Flags
from unspool.engine.method import UNMASK, Method
from unspool.engine.option import Options, option
from unspool.methods.diffusion._sweep import at


@dataclass(frozen=True)
class EBSamplerOptions(Options):
    """The default is that of transformers.

    Attributes:
        gamma: bound on the mutual information of the tokens of one step, in nats, at least 0.
    """

    gamma: float = option(0.1, least=0)


class EBSampler:
    """Commits the tokens of lowest entropy within an entropy budget."""

    def __init__(self, options: EBSamplerOptions | None = None) -> None:
        self.options = options or EBSamplerOptions()

    def start_block(self, view: BlockState) -> None:
        """Does nothing: the rule has no state."""

    def select(self, view: BlockState) -> Flags:
        chosen = np.zeros(len(view.masked), dtype=np.bool_)
        masked = np.flatnonzero(view.masked)
        order = masked[np.argsort(view.entropy[masked], kind="stable")]
        # The largest entropy of the first k is the k-th, so the difference is the sum of those before it.
        before = np.concatenate([[0.0], np.cumsum(view.entropy[order])[:-1]])
        chosen[order[before <= self.options.gamma]] = True
        return chosen


METHOD = Method(
    kind=UNMASK,
    guarantee="lossy",
    summary="Commits the tokens of lowest entropy within a budget that bounds their mutual dependence.",
    paper="Accelerated Sampling from Masked Diffusion Models via Entropy Bounded Unmasking (2025)",
    options=EBSamplerOptions,
    build=lambda _, options: EBSampler(options),
    sweep={"eb_sampler": at((0.0, 0.01, 0.1, 0.5, 1.0), "eb_sampler:gamma={}")},
)
