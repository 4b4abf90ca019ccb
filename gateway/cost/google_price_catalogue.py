"""Read list prices from Google's Cloud Billing catalogue: `GET /v1/services/{id}/skus`.

Source: cloud.google.com/billing/docs/reference/rest/v1/services.skus. A SKU is taken only if its description, region, usage
type and base unit are what is expected: a price that is not understood is an error, and the last good table stays.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from gateway.core.prices import Prices, parse_prices
from gateway.cost.google_api import GoogleApi, GoogleApiError

ADDRESS: Final = "https://cloudbilling.googleapis.com"
_CLOUD_RUN: Final = "152E-C115-5142"
_LOGGING: Final = "5490-F7B7-8DF6"
_GIB: Final = 1024.0**3
_PAGES: Final = 200
_NANO: Final = 1e-9


class CatalogueError(Exception):
    """The price catalogue cannot be read. It does not answer, or holds something else than is expected."""


class _Money(msgspec.Struct, rename="camel"):
    currency_code: str = ""
    units: str = "0"  # an int64 in JSON
    nanos: Annotated[int, Meta(ge=-999_999_999, le=999_999_999)] = 0

    @property
    def amount(self) -> float:
        return int(self.units) + self.nanos * _NANO


class _TierRate(msgspec.Struct, rename="camel"):
    unit_price: _Money
    start_usage_amount: float = 0.0


class _PricingExpression(msgspec.Struct, rename="camel"):
    base_unit: str = ""
    base_unit_conversion_factor: float = 1.0
    usage_unit: str = ""
    tiered_rates: list[_TierRate] = []


class _PricingInfo(msgspec.Struct, rename="camel"):
    pricing_expression: _PricingExpression


class _Category(msgspec.Struct, rename="camel"):
    usage_type: str = ""


class _Sku(msgspec.Struct, rename="camel"):
    sku_id: str = ""
    description: str = ""
    category: _Category = msgspec.field(default_factory=_Category)
    service_regions: list[str] = []
    pricing_info: list[_PricingInfo] = []


class _Page(msgspec.Struct, rename="camel"):
    skus: list[_Sku] = []
    next_page_token: str = ""


class _Wanted(NamedTuple):
    """Which SKU a field of the price table comes from."""

    service: str
    description: re.Pattern[str]
    base_unit: str
    scale: float  # base units in one unit of the field
    free: str = ""  # the field that takes where the first price begins
    free_scale: float = 1.0  # base units in one unit of that


def _services(what: str, billing: str) -> re.Pattern[str]:
    return re.compile(rf"Services {what}(?: Tier \d)? \({billing} billing\)(?: in .+)?")


_FIELDS: Final[Mapping[tuple[str, str], _Wanted]] = {
    ("cloud_run", "cpu_active"): _Wanted(
        _CLOUD_RUN, _services("CPU", "Request-based"), "s", 1.0, "free_cpu_s"
    ),
    ("cloud_run", "memory_gib_active"): _Wanted(
        _CLOUD_RUN, _services("Memory", "Request-based"), "By.s", _GIB, "free_memory_gib_s", _GIB
    ),
    ("cloud_run", "cpu_idle"): _Wanted(_CLOUD_RUN, _services("Min Instance CPU", "Request-based"), "s", 1.0),
    ("cloud_run", "memory_gib_idle"): _Wanted(
        _CLOUD_RUN, _services("Min Instance Memory", "Request-based"), "By.s", _GIB
    ),
    ("cloud_run", "cpu_always"): _Wanted(_CLOUD_RUN, _services("CPU", "Instance-based"), "s", 1.0),
    ("cloud_run", "memory_gib_always"): _Wanted(
        _CLOUD_RUN, _services("Memory", "Instance-based"), "By.s", _GIB
    ),
    ("cloud_run", "per_million_requests"): _Wanted(
        _CLOUD_RUN, re.compile("Requests"), "count", 1e6, "free_requests"
    ),
    ("logging", "gib"): _Wanted(_LOGGING, re.compile("Log Storage cost"), "By", _GIB, "free_gib", _GIB),
}


def read_catalogue(api: GoogleApi, before: Prices, *, region: str, currency: str, day: str) -> Prices:
    """Read Google's list prices of a region as a price table.

    The prices are of `day` (YYYY-MM-DD). Groups that are not in the catalogue's part are those of `before`. Raises
    CatalogueError; then nothing is to be changed.
    """
    services = {wanted.service for wanted in _FIELDS.values()}
    skus = {service: list(_skus(api, service, currency)) for service in sorted(services)}
    table: dict[str, Any] = msgspec.to_builtins(before)
    if currency != before.currency:
        raise CatalogueError(f"the table in force is in {before.currency}, and a ledger has one currency")
    for (group, field), wanted in _FIELDS.items():
        sku = _one(skus[wanted.service], wanted, region)
        price, free = _price(sku, wanted, currency)
        table[group][field] = price
        if wanted.free:
            table[group][wanted.free] = free
        table[group]["source"] = f"{ADDRESS}/v1/services/{wanted.service}/skus"
    table |= {"date": day, "region": region, "currency": currency}
    try:
        return parse_prices(table)
    except ValueError as error:
        raise CatalogueError(f"the catalogue's prices make no table: {error}") from None


def _skus(api: GoogleApi, service: str, currency: str) -> Iterator[_Sku]:
    query = {"currencyCode": currency, "pageSize": "5000"}
    for _ in range(_PAGES):
        try:
            page = msgspec.convert(api.get(f"v1/services/{service}/skus", query), _Page)
        except GoogleApiError as error:
            raise CatalogueError(str(error)) from None
        except msgspec.ValidationError as error:
            raise CatalogueError(f"the catalogue's answer is not as documented: {error}") from None
        yield from page.skus
        if not page.next_page_token:
            return
        query["pageToken"] = page.next_page_token
    raise CatalogueError(f"the catalogue of {service} has more than {_PAGES} pages")


def _one(skus: list[_Sku], wanted: _Wanted, region: str) -> _Sku:
    """The SKU of `wanted` in `region`. Raises CatalogueError where there is none, or several."""
    found = [
        sku
        for sku in skus
        if wanted.description.fullmatch(sku.description)
        and sku.category.usage_type == "OnDemand"
        and (region in sku.service_regions or "global" in sku.service_regions)
    ]
    in_region = [sku for sku in found if region in sku.service_regions] or found
    if len(in_region) != 1:
        what = ", ".join(f"{sku.sku_id} {sku.description}" for sku in in_region) or "none"
        raise CatalogueError(f"{wanted.description.pattern!r} in {region} should be one SKU, and is: {what}")
    return in_region[0]


def _price(sku: _Sku, wanted: _Wanted, currency: str) -> tuple[float, float]:
    """The first price above nothing, and the usage at which it begins; in the units of their fields."""
    name = f"{sku.sku_id} {sku.description}"
    if not sku.pricing_info:
        raise CatalogueError(f"{name} has no price")
    expression = sku.pricing_info[-1].pricing_expression  # in chronological order
    if expression.base_unit != wanted.base_unit or expression.base_unit_conversion_factor <= 0:
        raise CatalogueError(f"{name} is priced by {expression.base_unit!r}, not by {wanted.base_unit!r}")
    for rate in sorted(expression.tiered_rates, key=lambda rate: rate.start_usage_amount):
        if rate.unit_price.currency_code != currency:
            raise CatalogueError(f"{name} is priced in {rate.unit_price.currency_code!r}, not in {currency}")
        try:
            amount = rate.unit_price.amount
        except ValueError:
            raise CatalogueError(f"{name}: {rate.unit_price.units!r} is no amount") from None
        if amount > 0:
            factor = expression.base_unit_conversion_factor
            price = amount * wanted.scale / factor
            return float(f"{price:.12g}"), rate.start_usage_amount * factor / wanted.free_scale
    raise CatalogueError(f"{name} costs nothing, which cannot be right")
