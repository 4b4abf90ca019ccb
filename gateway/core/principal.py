"""Who a caller proved to be."""

from fnmatch import fnmatchcase
from functools import lru_cache

import msgspec


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated caller: an id that is safe in logs, and the models it may call as name patterns."""

    id: str
    label: str = ""
    models: tuple[str, ...] = ()

    def may_call(self, model: str) -> bool:
        return _matches(self.models, model)


@lru_cache(maxsize=65536)
def _matches(patterns: tuple[str, ...], model: str) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)
