"""Price tables: what a cloud charges for what backends use. Each says from which day it is in force."""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import msgspec

_LARGEST = 1e9
_CURRENCY = re.compile("[A-Za-z]{3}")  # ISO 4217


class CloudRunPrices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of Cloud Run, per second unless the name says otherwise."""

    source: str
    cpu_active: float
    memory_gib_active: float
    cpu_idle: float
    memory_gib_idle: float
    cpu_always: float
    memory_gib_always: float
    per_million_requests: float
    free_cpu_s: float
    free_memory_gib_s: float
    free_requests: float


class FirestorePrices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of Firestore."""

    source: str
    per_100k_reads: float
    per_100k_writes: float
    gib_month: float


class StoragePrices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of Cloud Storage."""

    source: str
    gib_month: float


class NetworkPrices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of network egress."""

    source: str
    egress_gib: float


class LoggingPrices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of Cloud Logging."""

    source: str
    gib: float
    free_gib: float


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a cloud's prices, in force from a date. It is for one region, in one currency."""

    date: str
    currency: str
    region: str
    cloud_run: CloudRunPrices
    firestore: FirestorePrices
    storage: StoragePrices
    network: NetworkPrices
    logging: LoggingPrices


def parse_prices(content: Mapping[str, Any]) -> Prices:
    """Parse a price table. ValueError says what is wrong with it.

    The currency may be in lower case, and is in upper case afterwards (ISO 4217).
    """
    try:
        prices = msgspec.convert(content, Prices)
        if date.fromisoformat(prices.date).isoformat() != prices.date:  # dates are compared as texts
            raise ValueError(f"{prices.date!r} is not a date such as 2026-11-30")
    except (msgspec.ValidationError, ValueError) as error:
        raise ValueError(str(error)) from None
    if not _CURRENCY.fullmatch(prices.currency):
        raise ValueError(f"{prices.currency[:40]!r} is not a currency such as USD")
    groups = (prices.cloud_run, prices.firestore, prices.storage, prices.network, prices.logging)
    negative = [
        field
        for group in groups
        for field, value in msgspec.structs.asdict(group).items()
        if isinstance(value, float) and not 0 <= value < _LARGEST
    ]
    if negative:
        raise ValueError(f"{', '.join(negative)} must lie between 0 and {_LARGEST:g}")
    return msgspec.structs.replace(prices, currency=prices.currency.upper())


def prices_at(tables: Iterable[Prices], day: date) -> Prices:
    """The price table in force on `day`. It is the newest that had begun, or else the oldest of all. There must be one."""
    by_date = sorted(tables, key=lambda table: table.date)
    begun = [table for table in by_date if table.date <= day.isoformat()]
    return begun[-1] if begun else by_date[0]


def tables_in_currency_at(tables: Iterable[Prices], day: date) -> tuple[Prices, ...]:
    """The price tables, of whatever date, in the currency that is in force on `day`.

    They come by date; tables in other currencies are left out. Amounts in several currencies do not add up.
    """
    by_date = sorted(tables, key=lambda table: table.date)
    currency = prices_at(by_date, day).currency
    return tuple(table for table in by_date if table.currency == currency)
