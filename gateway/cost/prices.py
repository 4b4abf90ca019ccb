"""Google Cloud's list prices, read from prices.toml with their source and date."""

import tomllib
from importlib.resources import files

import msgspec


class CloudRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Per second, unless the name says otherwise."""

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


class Firestore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of Firestore."""

    source: str
    per_100k_reads: float
    per_100k_writes: float
    gib_month: float


class Storage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of Cloud Storage."""

    source: str
    gib_month: float


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of network egress."""

    source: str
    egress_gib: float


class Logging(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of Cloud Logging."""

    source: str
    gib: float
    free_gib: float


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The price list, with its date, region and currency."""

    date: str
    currency: str
    region: str
    cloud_run: CloudRun
    firestore: Firestore
    storage: Storage
    network: Network
    logging: Logging


def read_prices() -> Prices:
    """Read prices.toml."""
    content = (files("gateway.cost") / "prices.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(content), Prices)
