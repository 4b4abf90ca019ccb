"""Read the price tables from the registry, and the default one.

`chips prices update` writes tables to the registry; the default one comes with CHIPS.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files

from gateway.core.prices import Prices, parse_prices, prices_at
from gateway.registry.base import PRICES, Registry
from gateway.registry.snapshot import read_price_table


@cache
def read_default_prices() -> Prices:
    """Read the default price table. It comes with CHIPS, in prices.toml."""
    import tomllib

    content = (files("gateway.cost") / "prices.toml").read_text(encoding="utf-8")
    return parse_prices(tomllib.loads(content))


def with_older_default_table(tables: Iterable[Prices]) -> tuple[Prices, ...]:
    """`tables`, sorted by date, after the default price table where that is older.

    The default table is left out where it is not older than all of `tables`, or in another currency. Otherwise a new version of
    CHIPS would replace prices, and their region, that somebody has chosen.
    """
    chosen = tuple(sorted(tables, key=lambda table: table.date))
    default = read_default_prices()
    if chosen and (default.date >= chosen[0].date or default.currency != chosen[0].currency):
        return chosen
    return (default, *chosen)


def prices_now(tables: Iterable[Prices]) -> Prices:
    """The price table in force today (UTC). The newest one may be of a day to come."""
    return prices_at(tables, datetime.now(UTC).date())


async def read_all_price_tables(registry: Registry) -> tuple[tuple[Prices, ...], list[str]]:
    """Read all price tables.

    Also returns which documents cannot be read, and why. The tables are those of the registry and the default one.
    Raises RegistryError.
    """
    tables, problems = [], []
    for document in await registry.list(PRICES):
        try:
            tables.append(read_price_table(document))
        except ValueError as error:
            problems.append(f"{PRICES}/{document.name}: {error}")
    return with_older_default_table(tables), problems
