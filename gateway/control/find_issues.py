"""Find issues: model versions that fail, are slow or are refused now.

The worst come first. An issue says what it is, which side can fix it, and since when.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Final, Literal

import msgspec

from gateway.control.window_totals import RequestTotals, WindowTotals, sum_totals
from gateway.core.model import Model
from gateway.core.model_updates import shift_traffic
from gateway.telemetry.merge_metrics import quantile
from gateway.telemetry.metric_catalog import LATENCY_BOUNDS
from gateway.telemetry.recorded_request_store import Tick

Side = Literal["gateway", "backend", "caller"]

_FAILING: Final = 0.01  # of the requests, where the model has no objective of its own
_REFUSED: Final = 0.2  # of the requests, before callers' own mistakes are worth a look
_FEW: Final = 10  # requests, before a share or a median of them says anything about latency or callers
_SLOWER: Final = 2.0  # times the median of the other versions
_BETTER: Final = 2.0  # times fewer bad requests: then a version can take the traffic of another
_LATE: Final = 0.01  # the objective is that 99 % are in time
_MOST: Final = 0.5  # of a request's time: then it is the backend's
_CHANCE: Final = 5  # requests: fewer may be late by chance, unless they are most of all
_CALM_S: Final = 90  # without a bad tick: what came before is another matter
_UNREACHABLE: Final = frozenset({"upstream-unreachable", "upstream-unavailable"})


class Issue(msgspec.Struct, kw_only=True):
    """Something that is wrong with one version of a model.

    It has a kind, the side responsible, figures, and since when it has lasted.
    """

    kind: Literal["unreachable", "failing", "late", "slower", "refused"]
    side: Side
    model: str
    version: str = ""
    requests: int  # in the window
    bad: int
    share: float
    share_now: float | None  # in the last ten seconds; None: there were no requests
    codes: dict[str, int] = {}  # of the errors
    p50_ms: float | None = None
    p99_ms: float | None = None
    limit_ms: float | None = None  # the objective
    others_ms: float | None = None  # the median of the slowest other version
    url: str = ""  # of the backend
    owner: str = ""
    traffic: int = 0  # percent that goes to the version
    shift: dict[str, int] | None = None  # the traffic without it; None: no much better version can take it
    since: int | None = None  # seconds since the epoch
    since_at_least: bool = False  # it began before the oldest tick that is kept

    @property
    def impact_sort_key(self) -> tuple[int, float]:
        """The key that sorts issues by their impact, worst first.

        Failures come before slowness, and that before callers' mistakes; then the number of requests harmed decides.
        """
        order = {"unreachable": 0, "failing": 0, "late": 1, "slower": 1, "refused": 2}
        return order[self.kind], -(self.share if self.share_now is None else self.share_now) * self.requests


def find_issues(models: Mapping[str, Model], window: WindowTotals, now: WindowTotals) -> list[Issue]:
    """Find the issues of the models in `window`. `now` is the window of the last ten seconds."""
    every: list[Issue] = []
    for name, versions in window.models.items():
        model = models.get(name)
        found: list[Issue] = []
        for version, figures in versions.items():
            for issue in _of_version(model, name, version, figures, versions):
                issue.share_now = _share_now(issue, now.for_version(name, version))
                issue.traffic = 0 if model is None else model.traffic.get(version, 0)
                backend = None if model is None else model.backend(version)
                issue.url = "" if backend is None else backend.url
                issue.owner = "" if model is None else model.owner
                found.append(issue)
        if model is not None:
            _set_shifts(model, [issue for issue in found if issue.side != "caller"])
        every += found
    return sorted(every, key=lambda issue: (issue.impact_sort_key, issue.model, issue.version))


def _set_shifts(model: Model, found: list[Issue]) -> None:
    """Say how the traffic of each bad version could go to versions that do much better."""
    for issue in found:
        no_better = {other.version for other in found if other.share * _BETTER > issue.share}
        issue.shift = _without(model, {issue.version, *no_better})


def _of_version(
    model: Model | None,
    name: str,
    version: str,
    figures: RequestTotals,
    versions: Mapping[str, RequestTotals],
) -> Iterator[Issue]:
    failing = figures.failures_by_side()
    allowed = (
        _FAILING if model is None or model.policy.availability is None else 1 - model.policy.availability
    )

    def issue(kind: str, side: Side, bad: int) -> Issue:
        codes = {
            label.partition(" ")[2]: count
            for label, count in figures.errors.items()
            if label.startswith(side)
        }
        return Issue(
            kind=kind,  # type: ignore[arg-type]
            side=side,
            model=name,
            version=version,
            requests=figures.requests,
            bad=bad,
            share=round(bad / figures.requests, 4),
            share_now=None,
            codes={} if kind in {"late", "slower"} else codes,
            p50_ms=figures.quantile_ms(0.5),
            p99_ms=figures.quantile_ms(0.99),
        )

    for side in ("gateway", "backend"):
        if failing[side] > allowed * figures.requests:
            found = issue("failing", side, failing[side])
            if side == "backend" and found.codes.keys() <= _UNREACHABLE:
                found.kind = "unreachable"
            yield found
    if failing["caller"] > _REFUSED * figures.requests and figures.requests >= _FEW and model is not None:
        yield issue("refused", "caller", failing["caller"])
    yield from _slow(model, version, figures, versions, issue)


def _slow(
    model: Model | None,
    version: str,
    figures: RequestTotals,
    versions: Mapping[str, RequestTotals],
    issue: Callable[[str, Side, int], Issue],
) -> Iterator[Issue]:
    if model is None:
        return
    side: Side = "backend" if _backend_share(figures) >= _MOST else "gateway"
    others = max(_medians_of_others(version, versions), default=None)
    median = figures.quantile_ms(0.5)
    slower = others is not None and median is not None and median > _SLOWER * others
    misses = figures.late > _LATE * figures.requests and (
        figures.late >= _CHANCE or figures.late * 2 > figures.requests
    )
    if model.policy.latency_s is not None and misses:
        late = issue("late", side, figures.late)
        late.limit_ms = model.policy.latency_s * 1000
        late.others_ms = others if slower else None
        yield late
    elif slower and figures.requests >= _FEW:
        found = issue("slower", side, figures.requests)
        found.others_ms = others
        yield found


def _backend_share(figures: RequestTotals) -> float:
    """How much of the median request's time the backend took, about."""
    whole, backend = (quantile(0.5, counts, LATENCY_BOUNDS) for counts in (figures.buckets, figures.backend))
    return 0.0 if not whole or backend is None else backend / whole


def _medians_of_others(version: str, versions: Mapping[str, RequestTotals]) -> list[float]:
    return [
        median
        for other, figures in versions.items()
        if other != version
        and figures.requests >= _FEW
        and figures.failed * 2 < figures.requests  # a refusal is quick, and no measure
        and (median := figures.quantile_ms(0.5)) is not None
    ]


def _share_now(issue: Issue, figures: RequestTotals) -> float | None:
    return round(_bad(issue, figures) / figures.requests, 4) if figures.requests else None


def _bad(issue: Issue, figures: RequestTotals) -> int:
    """How many of these requests have what the issue is about."""
    if issue.kind == "late":
        return figures.late
    if issue.kind == "slower":
        median = figures.quantile_ms(0.5)
        slow = median is not None and issue.others_ms is not None and median > _SLOWER * issue.others_ms
        return figures.requests if slow else 0
    return figures.failures_by_side()[issue.side]


def _without(model: Model, versions: Set[str]) -> dict[str, int] | None:
    split = model.traffic
    try:
        for version in sorted(versions):
            split = shift_traffic(split, version, 0)
    except ValueError:
        return None
    return {name: share for name, share in split.items() if share}


def set_issue_start(issue: Issue, coarse: Iterable[Tick], fine: Iterable[Tick], oldest: int | None) -> None:
    """Set since when an issue has lasted. That is the first bad tick of the unbroken row of bad ticks up to now."""
    began: int | None = None
    ticks = [*_merged(issue, coarse), *_merged(issue, fine)]
    for at, seconds, figures in sorted(ticks, key=lambda tick: tick[0] - tick[1], reverse=True):
        start = at - seconds
        if _bad(issue, figures) * 100 <= figures.requests:
            continue
        if began is not None and began - at > _CALM_S:
            break
        began = start if began is None else min(began, start)
    issue.since = began
    issue.since_at_least = began is not None and oldest is not None and began <= oldest


def _merged(issue: Issue, ticks: Iterable[Tick]) -> list[tuple[int, int, RequestTotals]]:
    """The ticks of the issue's version, all workers' together: end, length and figures."""
    by_time: dict[tuple[int, int], list[Tick]] = {}
    for tick in ticks:
        if tick.version == issue.version:
            by_time.setdefault((tick.at, tick.seconds), []).append(tick)
    return [(at, seconds, sum_totals(same)) for (at, seconds), same in by_time.items()]
