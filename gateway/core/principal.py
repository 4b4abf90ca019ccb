"""The authenticated caller (principal), and what it may do to which models."""

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, Literal

import msgspec

from gateway.core.ip_network_set import NetworkSet

Verb = Literal["score", "metadata", "pin", "operate"]

SCORE: Final = "score"  # send a model something to predict
METADATA: Final = "metadata"  # read what a model is
PIN: Final = "pin"  # choose the version by X-Chips-Version, whatever its share
OPERATE: Final = "operate"  # look into the gateway itself: console, metrics, traces of requests

VERBS: Final[tuple[Verb, ...]] = (SCORE, METADATA, PIN, OPERATE)
CALLER_VERBS: Final[tuple[Verb, ...]] = (SCORE, METADATA)


class Quota(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """The rates and quotas of one principal, or of one model. They say how much it may be called; None: no limit."""

    requests_per_s: float | None = None
    burst: int | None = None  # requests at once after a pause; None: what one second allows
    max_in_flight: int | None = None
    requests_per_day: int | None = None
    requests_per_month: int | None = None


UNLIMITED: Final = Quota()


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated caller, and what it may do.

    `id` is safe in logs and headers; `models` and `verbs` say what it may do to which models.
    """

    id: str
    label: str = ""
    team: str = ""  # who pays for its calls
    models: tuple[str, ...] = ()  # name patterns
    verbs: tuple[Verb, ...] = CALLER_VERBS
    networks: NetworkSet | None = None  # where it may call from; None: wherever callers are admitted
    quota: Quota = UNLIMITED

    def may(self, verb: Verb, model: str | None = None) -> bool:
        """Whether the principal may do `verb` to `model`.

        Without a model, it is about the whole gateway, which needs the pattern `*`.
        """
        if verb not in self.verbs:
            return False
        return "*" in self.models or (model is not None and _matches(self.models, model))


ANONYMOUS: Final = Principal(id="anonymous", models=("*",))


@lru_cache(maxsize=65536)
def _matches(patterns: tuple[str, ...], model: str) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)
