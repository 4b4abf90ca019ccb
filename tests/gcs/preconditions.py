"""Preconditions: the JSON API's parameters, the XML API's headers, and HTTP's own."""

from collections.abc import Mapping
from typing import NamedTuple

from tests.gcs.objects import Object, StorageError

_READS = frozenset({"GET", "HEAD"})
_NOT_MET = "At least one of the pre-conditions you specified did not hold."


class Conditions(NamedTuple):
    """What a request demands, kept apart from it: a resumable upload checks it again when it ends."""

    method: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    def check(self, existing: Object | None, *, writes: bool = False) -> None:
        """Raise 412, or 304 where a read asks for something newer than what it has."""
        reads = self.method in _READS and not writes
        self._check_generations(existing, reads=reads)
        if existing is not None:
            self._check_etags(existing, reads=reads)

    def _check_generations(self, existing: Object | None, *, reads: bool) -> None:
        generation = existing.generation if existing is not None else 0
        metageneration = existing.metageneration if existing is not None else 0
        for name, actual in (("Generation", generation), ("Metageneration", metageneration)):
            wanted = self._value(f"if{name}Match", f"x-goog-if-{name.lower()}-match")
            if wanted is not None and wanted != actual:
                raise StorageError(412, _NOT_MET)
            unwanted = self._value(f"if{name}NotMatch", f"x-goog-if-{name.lower()}-not-match")
            if unwanted is not None and unwanted == actual:
                raise StorageError(304 if reads else 412, _NOT_MET)

    def _check_etags(self, existing: Object, *, reads: bool) -> None:
        tags = {existing.etag, existing.md5.hex()}
        wanted = self.headers.get("If-Match")
        if wanted is not None and wanted != "*" and not tags & _tags(wanted):
            raise StorageError(412, _NOT_MET)
        unwanted = self.headers.get("If-None-Match")
        if unwanted is not None and (unwanted == "*" or tags & _tags(unwanted)):
            raise StorageError(304 if reads else 412, _NOT_MET)

    def _value(self, parameter: str, header: str) -> int | None:
        value = self.query.get(parameter, self.headers.get(header))
        return None if value is None else int(value)


def _tags(header: str) -> set[str]:
    return {tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")}
