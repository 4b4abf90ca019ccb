"""From the path to a backend: by the snapshot alone, but for one question on a miss."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest, ModelNotFound, RegistryUnavailable
from gateway.core.header_classification import classify_request_headers
from gateway.core.model import Backend, Model, Policy
from gateway.core.model_updates import to_document
from gateway.core.request_target import parse_target
from gateway.registry.base import MODELS, Document, MirroredListing, Unavailable
from gateway.registry.snapshot import Snapshot, compile_snapshot
from gateway.stages.route_to_backend import RouteToBackend


class StillMirror:
    """A mirror whose snapshot stands still; `later` is what the registry has beyond it."""

    age_s = 0.0

    def __init__(self, *models: Model, later: Model | None = None, away: bool = False) -> None:
        self.snapshot: Snapshot | None = snapshot_of(*models)
        self._later = later
        self._away = away
        self.asked: list[str] = []

    async def read_missing_model(self, name: str) -> Any:
        self.asked.append(name)
        if self._away:
            raise Unavailable("away")
        if self._later is None or self._later.name != name:
            return None
        self.snapshot = snapshot_of(self._later)
        return self.snapshot.entries[name]


def snapshot_of(*models: Model) -> Snapshot:
    documents = tuple(Document(kind=MODELS, name=m.name, revision=1, body=to_document(m)) for m in models)
    return compile_snapshot(MirroredListing(registry_id="r", generation=7, documents=documents))


def model(name: str = "wine", **fields: Any) -> Model:
    backends = (Backend(version="1", url="http://one"), Backend(version="2", url="http://two"))
    return Model(**{"name": name, "backends": backends, "traffic": {"1": 100, "2": 0}} | fields)


def exchange(target: str = "/wine", **fields: str) -> Any:
    """What the stage reads and fills."""
    head = classify_request_headers([(n.replace("_", "-").encode(), v.encode()) for n, v in fields.items()])
    return SimpleNamespace(target=parse_target(target), head=head, arrived=100.0)


async def routed(mirror: Any, target: str = "/wine", **fields: str) -> Any:
    made = exchange(target, **fields)
    await RouteToBackend(mirror)(made)
    return made


async def test_a_model_is_found_without_asking_anybody():
    mirror = StillMirror(model())
    found = await routed(mirror)
    assert (found.model.name, found.backend.version, found.generation) == ("wine", "1", 7)
    assert mirror.asked == []


async def test_a_version_in_the_path_is_taken_by_its_word():
    found = await routed(StillMirror(model()), "/v2/models/wine/versions/2/infer")
    assert found.backend.version == "2"
    with pytest.raises(ModelNotFound, match="has no version 3"):
        await routed(StillMirror(model()), "/v2/models/wine/versions/3/infer")


async def test_on_a_miss_the_registry_is_asked_once():
    mirror = StillMirror(later=model("iris"))
    found = await routed(mirror, "/iris")
    assert found.model.name == "iris"
    assert mirror.asked == ["iris"]
    with pytest.raises(ModelNotFound, match='There is no model "beer" here'):
        await routed(mirror, "/beer")


async def test_a_registry_that_is_away_is_not_a_model_that_is_not_there():
    with pytest.raises(RegistryUnavailable):
        await routed(StillMirror(away=True), "/iris")
    never_read = StillMirror()
    never_read.snapshot = None
    with pytest.raises(RegistryUnavailable):
        await routed(never_read)


async def test_a_disabled_model_and_one_without_backends_are_not_found():
    with pytest.raises(ModelNotFound, match="is disabled"):
        await routed(StillMirror(model(enabled=False)))
    with pytest.raises(ModelNotFound, match="has no backend"):
        await routed(StillMirror(model(backends=(), traffic={})))


@pytest.mark.parametrize(
    ("asked_ms", "allowed_s", "deadline"),
    [
        (None, 60.0, 160.0),
        ("1000", 60.0, 101.0),
        ("90000", 60.0, 160.0),
        ("1", 60.0, 100.001),
        ("999999999", 5.0, 105.0),
    ],
)
async def test_the_shorter_time_counts(asked_ms: str | None, allowed_s: float, deadline: float):
    fields = {} if asked_ms is None else {"x_request_timeout": asked_ms}
    mirror = StillMirror(model(policy=Policy(timeout_s=allowed_s)))
    assert (await routed(mirror, **fields)).deadline == pytest.approx(deadline)


@pytest.mark.parametrize("asked", ["", "0", "-1", "1.5", "1e3", " 5", "soon", "1000000000", "٣"])
async def test_a_time_that_is_none_is_refused(asked: str):
    head = classify_request_headers([(b"X-Request-Timeout", asked.encode())])
    made = SimpleNamespace(target=parse_target("/wine"), head=head, arrived=100.0)
    with pytest.raises(BadRequest, match="X-Request-Timeout"):
        await RouteToBackend(StillMirror(model()))(made)  # type: ignore[arg-type]


@given(st.text(alphabet="0123456789", min_size=1, max_size=9).filter(lambda text: int(text) > 0))
def test_no_time_is_longer_than_the_models_own(asked: str):
    import asyncio

    mirror = StillMirror(model(policy=Policy(timeout_s=2.0)))
    deadline = asyncio.run(routed(mirror, x_request_timeout=asked)).deadline
    assert 100.0 < deadline <= 102.0
