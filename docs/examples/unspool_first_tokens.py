"""An example of a third-party search (no paper): try the likeliest few first tokens, and continue each greedily.

Changes about greedy decoding: several texts, of which the likeliest wins. Guarantee: lossy. Left out: length penalties.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import partial

from unspool.engine.frontier import Frontier
from unspool.engine.method import SEARCH, Method
from unspool.engine.option import Options, option
from unspool.engine.search import Branch, Candidate, Found, SearchRequest


@dataclass(frozen=True)
class FirstTokensOptions(Options):
    """Options of ``first_tokens``.

    Attributes:
        width: how many first tokens, 1 to 64.
    """

    width: int = option(3, least=1, most=64)


def first_tokens(request: SearchRequest, options: FirstTokensOptions) -> Found:
    """All texts grow in step, so that a pass reads them together."""
    with closing(
        Frontier(request.model, request.prompt, sessions=options.width, on_event=request.on_event)
    ) as frontier:
        (start,) = frontier.read([()])
        running = [Branch((token,), logprob) for token, logprob in start.top(options.width)]
        found = []
        while running:
            for branch in running:
                if reason := request.finished(branch.output):
                    found.append(Candidate(branch.output, branch.logprob, branch.logprob, reason))
            running = [branch for branch in running if not request.finished(branch.output)]
            if running:
                for branch, after in zip(running, frontier.read([b.output for b in running]), strict=True):
                    branch.extend(after.best, after.logprob(after.best))
        found.sort(key=lambda candidate: -candidate.score)
        return Found(tuple(found), frontier.passes, frontier.evaluated_tokens, {"texts": len(found)})


METHOD = Method(
    kind=SEARCH,
    guarantee="lossy",
    summary="Continues the likeliest few first tokens greedily and keeps the likeliest text.",
    paper="none",
    options=FirstTokensOptions,
    build=lambda _, options: partial(first_tokens, options=options),
)
