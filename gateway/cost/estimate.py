"""Estimate a model's monthly cost from its traffic and its instances.

The cost is that of Cloud Run. Requests come at random and are served for a fixed time, so by Little's law `rps x latency` of
them are under way. An instance takes `concurrency` at once; Cloud Run aims at 60 % of that
(cloud.google.com/run/docs/about-instance-autoscaling), so `rps x latency / (0.6 x concurrency)` instances run. Cloud Run
bills an instance while at least one request is under way in it: the share of time in which a queue with `concurrency`
servers is not empty (M/M/c: L. Kleinrock, Queueing Systems, vol. 1, 1975, section 3.5).
"""

import math
from typing import Final, NamedTuple

from gateway.core.prices import Prices

MONTH_S: Final = 730 * 3600.0
UTILIZATION: Final = 0.6  # of an instance's concurrency, which Cloud Run's autoscaler aims at
_MANY: Final = 1000  # requests at once, of which none ever waits for another
_LOG_LINE_BYTES: Final = 900
_GIB: Final = 1024.0**3
_RUNTIME_GIB: Final = 0.25


class TrafficLoad(NamedTuple):
    """The traffic of a model. It is averaged over the month."""

    rps: float
    latency_s: float
    request_bytes: float = 1024
    response_bytes: float = 1024
    busy_share: float = 1.0  # of the month in which calls come at all; the rest of it is silent


class InstanceSettings(NamedTuple):
    """The CPU, memory and concurrency of each instance."""

    concurrency: int
    cpu: float
    memory_gib: float
    min_instances: int = 0
    artifact_gib: float = 0.1


def memory_needed_gib(artifact_gib: float) -> float:
    """The memory that one instance needs at least, in GiB.

    The artifact on its disk, which is memory on Cloud Run, the model loaded from it, and the language with its packages.
    """
    return 2 * artifact_gib + _RUNTIME_GIB


class CostItem(NamedTuple):
    """One item of a cost estimate. It has a name, an amount a month, and how that comes about."""

    name: str
    amount: float  # of the currency, a month
    why: str


class CostEstimate(NamedTuple):
    """A cost estimate: the number of instances and the cost items. The cost is for a month."""

    instances: float  # running while calls come
    parts: list[CostItem]

    @property
    def total(self) -> float:
        return sum(part.amount for part in self.parts)


def busy_share(under_way: float, concurrency: int) -> float:
    """The share of time in which an instance has at least one request.

    It runs at most `concurrency` of them at once. `under_way`: how many it has on average, below `concurrency`. One at a
    time means that they never overlap: the share is their number.
    """
    if concurrency > _MANY:
        return 1 - math.exp(-under_way)
    term = total = 1.0
    for number in range(1, concurrency):
        term *= under_way / number
        total += term
    total += term * under_way / (concurrency - under_way)
    return 1 - 1 / total


def estimate_cost(load: TrafficLoad, deployment: InstanceSettings, prices: Prices) -> CostEstimate:
    """Estimate the monthly cost of one model's backend.

    It leaves free tiers out. ValueError where the load makes no sense.
    """
    if load.rps < 0 or load.latency_s <= 0 or not 0 < load.busy_share <= 1:
        raise ValueError("requests a second cannot be negative, and the latency must be more than nothing")
    run = prices.cloud_run
    busy_s = MONTH_S * load.busy_share
    rps = load.rps / load.busy_share  # while calls come
    under_way = rps * load.latency_s
    needed = under_way / (UTILIZATION * deployment.concurrency)
    instances = max(needed, float(deployment.min_instances), 1.0 if load.rps else 0.0)
    active_share = busy_share(under_way / instances, deployment.concurrency) if instances else 0.0
    active_s = instances * active_share * busy_s
    # A warm instance that serves nobody is billed at the idle price.
    idle_s = max(deployment.min_instances * MONTH_S - min(active_s, deployment.min_instances * MONTH_S), 0.0)
    requests = load.rps * MONTH_S
    log_gib = requests * _LOG_LINE_BYTES * 2 / _GIB  # the gateway's line and the backend's
    egress_gib = requests * load.response_bytes / _GIB
    return CostEstimate(
        instances,
        [
            CostItem(
                "computing",
                active_s * (deployment.cpu * run.cpu_active + deployment.memory_gib * run.memory_gib_active),
                f"{active_s / 3600:,.0f} instance hours in which a request was under way",
            ),
            CostItem(
                "kept warm",
                idle_s * (deployment.cpu * run.cpu_idle + deployment.memory_gib * run.memory_gib_idle),
                f"{idle_s / 3600:,.0f} instance hours of waiting, for min_instances = {deployment.min_instances}",
            ),
            CostItem(
                "requests",
                requests / 1e6 * run.per_million_requests * 2,
                f"{requests / 1e6:,.2f} million, at the gateway and at the backend",
            ),
            CostItem(
                "egress",
                egress_gib * prices.network.egress_gib,
                f"{egress_gib:,.2f} GiB of answers to the internet",
            ),
            CostItem("logs", log_gib * prices.logging.gib, f"{log_gib:,.2f} GiB, two lines a request"),
            CostItem(
                "artifact",
                deployment.artifact_gib * prices.storage.gib_month,
                f"{deployment.artifact_gib:g} GiB in Cloud Storage",
            ),
        ],
    )
