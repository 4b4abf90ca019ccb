"""The reference page of what `chips verify` checks, made from the checks."""

from collections.abc import Iterator

from gateway.verify.run import CHECKS

HEAD = """\
# What `chips verify` checks

<!-- Made from gateway/verify: `make docs` writes this page. -->

Each check compares a backend with one sentence of [the contract](../../backends/CONTRACT.md). Those marked *short* are
also run by `chips register`. Those of `logs` and `life` need the process itself: `--command`.
[How to check a backend](../how-to/check-a-backend.md) shows the command.
"""


def render() -> str:
    return "\n".join([HEAD, *_groups()])


def _groups() -> Iterator[str]:
    for group in dict.fromkeys(check.group for check in CHECKS):
        yield f"## {group}\n"
        yield "| check | the contract says | |\n|---|---|---|"
        for check in CHECKS:
            if check.group == group:
                contract = check.contract.replace("|", "\\|").replace("<", "&lt;")
                yield f"| `{check.name}` | {contract} | {'short' if check.short else ''} |"
        yield ""
