"""The option `--sticky`, for every command that splits traffic."""

import secrets
from typing import Annotated

import typer

from gateway.cli.support.console import EX_USAGE, Failure
from gateway.core.header_classification import FIELDS_IN_USE
from gateway.core.sticky_shares import StickyShares, parse_sticky_by

StickyOption = Annotated[
    str | None,
    typer.Option(
        "--sticky",
        metavar="BY",
        help="The same version each time for the same caller, key, header:NAME or field:NAME (of the JSON body, such as "
        "field:parameters.customer); off: draw each request by itself.",
    ),
]


def with_sticky_option(sticky: StickyShares | None, option: str | None) -> StickyShares | None:
    """A model's sticky shares as the option `--sticky` changes them.

    Without the option, they are as they were. Raises Failure.

    The seed stays as long as shares stick to the same thing, so that every caller keeps its version.
    """
    if option is None:
        return sticky
    if option == "off":
        return None
    try:
        by = parse_sticky_by(option)
    except ValueError as error:
        raise Failure(str(error), hint="or off, to draw each request by itself", code=EX_USAGE) from None
    if by.kind == "header" and by.name in FIELDS_IN_USE:
        raise Failure(
            f"shares cannot stick to the header {by.name}, which says something else than who is calling",
            hint="use --sticky caller, or a header of your own such as header:X-User",
            code=EX_USAGE,
        )
    normal = f"{by.kind}:{by.name}" if by.name else by.kind
    if sticky is not None and sticky.by == normal:
        return sticky
    return StickyShares(by=normal, seed=secrets.token_hex(16))
