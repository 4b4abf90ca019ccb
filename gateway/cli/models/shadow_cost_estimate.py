"""Estimate the cost of a shadow on Cloud Run, to show it before the shadow begins."""

import re
from typing import Any, NamedTuple

from gateway.cli.support.console import EX_USAGE, Failure
from gateway.core.shadow import Shadow
from gateway.cost.estimate import MONTH_S, InstanceSettings, TrafficLoad, estimate_cost
from gateway.cost.read_price_tables import read_default_prices

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s)")
_MILLION = 1e6
_INSTANCE = InstanceSettings(concurrency=1, cpu=1.0, memory_gib=1.0, artifact_gib=0.0)


class ShadowCostEstimate(NamedTuple):
    """The estimated cost of a shadow, in words and as JSON values."""

    text: str
    document: dict[str, Any]


def shadow_cost_estimate(
    shadow: Shadow, rps: float | None, latency: str, seconds: float
) -> ShadowCostEstimate:
    """Estimate the cost of the additional work of both versions, on instances of one processor and 1 GiB that run one prediction at a time.

    `rps`: the model's requests a second; None: the price of a million that are shadowed. Raises Failure.
    """
    match = _DURATION.fullmatch(latency)
    if match is None:
        raise Failure(f"{latency!r} is not a duration", hint="such as 40ms or 1.5s", code=EX_USAGE)
    latency_s = float(match[1]) / (1000 if match[2] == "ms" else 1)
    prices = read_default_prices()
    copies = 1 + shadow.noise_percent / 100
    requests = _MILLION if rps is None else rps * seconds * shadow.percent / 100
    if not requests or not latency_s:
        return ShadowCostEstimate(
            f"nothing: no requests ({prices.currency})", {"requests": 0.0, "total": 0.0}
        )
    load = TrafficLoad(rps=requests * copies / MONTH_S, latency_s=latency_s)
    month = estimate_cost(load, _INSTANCE, prices)
    total = sum(part.amount for part in month.parts if part.name in {"computing", "requests"})
    what = f"{requests:,.0f} requests" + ("" if rps is None else f" in {seconds / 3600:g} hours")
    text = (
        f"{total:.2f} {prices.currency} for {what} of {latency} each on Cloud Run ({copies:g} predictions each, list prices "
        f"of {prices.date}); on machines of your own, their time"
    )
    if rps is None:
        text += ". --rps says how many there will be"
    document = {
        "requests": requests,
        "predictions": requests * copies,
        "currency": prices.currency,
        "total": total,
    }
    return ShadowCostEstimate(text, document)
