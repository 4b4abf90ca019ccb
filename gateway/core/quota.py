"""The rates and quotas of a caller or a model: how much it may be called."""

from typing import Final

import msgspec


class Quota(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """The rates and quotas of one principal, or of one model. They say how much it may be called; None: no limit."""

    requests_per_s: float | None = None
    burst: int | None = None  # requests at once after a pause; None: what one second allows
    max_in_flight: int | None = None
    requests_per_day: int | None = None
    requests_per_month: int | None = None


UNLIMITED: Final = Quota()
