"""Estimate the cost of a shadow. It is the cost on Cloud Run, shown before the shadow begins."""

import re
from typing import Any, NamedTuple

from gateway.cli.support.console import EX_USAGE, Failure
from gateway.core.budget import MICRO
from gateway.core.model import Model
from gateway.core.prices import Prices
from gateway.core.shadow_document import Shadow
from gateway.cost.ledger import request_cost
from gateway.cost.usage_documents import Usage, instance_size_of

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s)")
_MILLION = 1e6


class ShadowCostEstimate(NamedTuple):
    """The estimated cost of a shadow, in words and as JSON values."""

    text: str
    document: dict[str, Any]


def shadow_cost_estimate(
    shadow: Shadow, model: Model, prices: Prices, *, rps: float | None, latency: str, seconds: float
) -> ShadowCostEstimate:
    """Estimate the cost that a shadow adds.

    It is that of the predictions of the candidate and of the stable version. Each version runs on instances of its declared
    size, and a prediction takes one instance for itself. `rps`: the model's requests a second; None: the price of a million
    that are shadowed. Raises Failure.
    """
    match = _DURATION.fullmatch(latency)
    if match is None:
        raise Failure(f"{latency!r} is not a duration", hint="such as 40ms or 1.5s", code=EX_USAGE)
    latency_s = float(match[1]) / (1000 if match[2] == "ms" else 1)
    noise = shadow.noise_percent / 100
    requests = _MILLION if rps is None else rps * seconds * shadow.percent / 100
    micros = 0
    for version, predictions in ((shadow.candidate, requests), (shadow.stable, requests * noise)):
        backend = model.backend(version)
        if backend is not None:
            usage = Usage(reached=round(predictions), backend_us=round(predictions * latency_s * MICRO))
            cost = request_cost(instance_size_of(backend), usage, prices)
            micros += cost.allocated + cost.requests
    total = micros / MICRO
    what = f"{requests:,.0f} requests" + ("" if rps is None else f" in {seconds / 3600:g} hours")
    text = (
        f"{total:.2f} {prices.currency} for {what} of {latency} each on Cloud Run ({1 + noise:g} predictions each, list prices "
        f"of {prices.date}); on machines of your own, their time"
    )
    if rps is None:
        text += ". --rps says how many there will be"
    document = {
        "requests": requests,
        "predictions": requests * (1 + noise),
        "currency": prices.currency,
        "total": total,
    }
    return ShadowCostEstimate(text, document)
