"""``unspool check``: run the contract tests of a method, for its author."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from unspool.cli.common import bars, print_json
from unspool.errors import UnspoolError

if TYPE_CHECKING:
    from unspool.conformance.check import Outcome


def check(
    methods: Annotated[list[str], typer.Argument(metavar="METHOD", help="Names of methods, see `unspool methods`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
) -> None:
    """Check that methods fulfil the contract of their kind. Takes seconds, on bundled small models.

    Checks built-in and installed methods of every kind; downloads nothing. For example, a drafter must give plain
    decoding's text whatever it drafts, and all of its draws are enumerated on a vocabulary of three; a shaper must be
    a function of the text; a constraint must mask the same tokens in a tree as in a text. Exit code 1 if a check
    fails.

    Examples:

      unspool check suffix

      unspool check my_drafter my_shaper --json
    """
    from unspool.conformance.check import checks, run
    from unspool.engine.method import check_installed
    from unspool.methods import named

    if twice := next((name for name in methods if methods.count(name) > 1), None):
        raise UnspoolError(f"{twice} is named twice among the methods; name it once")
    rows = [named(name) for name in methods]
    for row in rows:
        check_installed(row)
    found: dict[str, list[Outcome]] = {}
    with bars() as progress:
        for row in rows:
            outcomes = found.setdefault(row.name, [])
            of = len(checks(row))
            progress(row.name, 0, of)
            for outcome in run(row):
                outcomes.append(outcome)
                progress(row.name, len(outcomes), of)
    failed = [outcome for outcomes in found.values() for outcome in outcomes if not outcome.passed]
    if as_json:
        print_json([_json(row, found[row.name]) for row in rows])
    else:
        for row in rows:
            passed = sum(outcome.passed for outcome in found[row.name])
            print(f"{row.name} ({row.kind}): {passed} of {len(found[row.name])} checks passed")
            for outcome in found[row.name]:
                if not outcome.passed:
                    print(f"  failed: {outcome.rule}\n    {outcome.reason}")
    if failed:
        raise typer.Exit(1)


def _json(row: Any, outcomes: list[Outcome]) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind.name,
        "passed": all(outcome.passed for outcome in outcomes),
        "checks": [
            {
                "name": outcome.check,
                "rule": outcome.rule,
                "passed": outcome.passed,
                "reason": outcome.reason,
                "seconds": round(outcome.seconds, 3),
            }
            for outcome in outcomes
        ],
    }
