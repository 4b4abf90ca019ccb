"""The authenticated caller (principal), and what it may do to which models."""

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, Literal

import msgspec

from gateway.core.ip_network_set import NetworkSet
from gateway.core.quota import UNLIMITED, Quota

Verb = Literal["score", "metadata", "pin", "operate"]

SCORE: Final = "score"  # send a model something to predict
METADATA: Final = "metadata"  # read what a model is
PIN: Final = "pin"  # choose the version by X-Chips-Version, whatever its share
OPERATE: Final = "operate"  # look into the gateway itself: console, metrics, traces of requests

VERBS: Final[tuple[Verb, ...]] = (SCORE, METADATA, PIN, OPERATE)
CALLER_VERBS: Final[tuple[Verb, ...]] = (SCORE, METADATA)


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
