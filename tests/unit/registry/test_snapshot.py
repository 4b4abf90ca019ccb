"""The snapshot: what is good is served, what is broken takes nothing else along, traffic is split as it was said."""

import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Backend, Model
from gateway.core.model_updates import to_document
from gateway.registry.base import EMERGENCIES, KEYS, MODELS, REVOCATIONS, Document, MirroredListing
from gateway.registry.snapshot import ModelEntry, compile_snapshot


def model(name: str = "wine", traffic: dict[str, int] | None = None, **fields: Any) -> Model:
    traffic = {"1": 100} if traffic is None else traffic
    backends = tuple(Backend(version=version, url=f"http://backend-{version}") for version in traffic)
    return Model(name=name, backends=backends, traffic=traffic, **fields)


def document(
    body: Model | dict[str, Any], name: str = "wine", revision: int = 1, kind: str = MODELS
) -> Document:
    content = body if isinstance(body, dict) else to_document(body)
    return Document(kind=kind, name=name, revision=revision, body=content)


def listing(*documents: Document, generation: int = 1, registry_id: str = "r") -> MirroredListing:
    return MirroredListing(registry_id=registry_id, generation=generation, documents=documents)


BROKEN = {"name": "wine", "traffic": "all of it"}


def test_models_and_revocations_are_told_apart():
    snapshot = compile_snapshot(
        listing(
            document(model()),
            document({"at": "2026-01-01T00:00:00Z"}, name="d1", kind=REVOCATIONS),
            document({"anything": 1}, name="later", kind="of-a-newer-release"),
            document({"label": "x"}, name="d2", kind=KEYS),
        )
    )
    assert set(snapshot.entries) == {"wine"}
    assert snapshot.revoked == {"d1"}
    assert snapshot.problems == ()


def test_a_broken_document_takes_no_other_along():
    snapshot = compile_snapshot(listing(document(BROKEN), document(model("iris"), name="iris")))
    assert set(snapshot.entries) == {"iris"}
    (problem,) = snapshot.problems
    assert problem.startswith("models/wine revision 1: ")


def test_where_an_earlier_revision_was_good_it_stays_in_service():
    good = compile_snapshot(listing(document(model(owner="ana"))))
    broken = compile_snapshot(listing(document(BROKEN, revision=2), generation=2), good)
    assert broken.entries["wine"].model.owner == "ana"
    assert len(broken.problems) == 1
    still = compile_snapshot(listing(document(BROKEN, revision=2), generation=3), broken)
    assert still.entries["wine"].model.owner == "ana"
    assert len(still.problems) == 1, "it is told again as long as it is broken"
    mended = compile_snapshot(listing(document(model(owner="bob"), revision=3), generation=4), still)
    assert mended.entries["wine"].model.owner == "bob"
    assert mended.problems == ()


def test_of_another_registry_nothing_stays():
    good = compile_snapshot(listing(document(model())))
    other = compile_snapshot(listing(document(BROKEN), registry_id="other"), good)
    assert dict(other.entries) == {}


def test_what_was_deleted_is_gone():
    good = compile_snapshot(listing(document(model())))
    assert dict(compile_snapshot(listing(generation=2), good).entries) == {}


def test_what_did_not_change_is_taken_over_as_it_is():
    first = compile_snapshot(listing(document(model()), document(model("iris"), name="iris")))
    second = compile_snapshot(
        listing(document(model()), document(model("iris"), name="iris", revision=2), generation=2), first
    )
    assert second.entries["wine"] is first.entries["wine"]
    assert second.entries["iris"] is not first.entries["iris"]


def test_a_document_that_calls_itself_something_else_is_broken():
    snapshot = compile_snapshot(listing(document(model("iris"), name="wine")))
    assert dict(snapshot.entries) == {}
    assert 'it says that it is "iris"' in snapshot.problems[0]


def test_a_snapshot_cannot_be_changed():
    snapshot = compile_snapshot(listing(document(model())))
    with pytest.raises(TypeError):
        snapshot.entries["iris"] = snapshot.entries["wine"]  # type: ignore[index]


# -- traffic


@st.composite
def traffics(draw: st.DrawFn) -> dict[str, int]:
    cuts = draw(st.lists(st.integers(0, 100), max_size=5))
    return {str(n): after - before for n, (before, after) in enumerate(pairwise([0, *sorted(cuts), 100]))}


@given(traffics())
def test_each_percent_of_the_draw_goes_where_it_belongs(traffic: dict[str, int]):
    entry = ModelEntry(model(traffic=traffic), 1)
    picked: Counter[str] = Counter()
    for percent in range(100):
        for draw in ((percent + 0.001) / 100, (percent + 0.999) / 100):
            backend = entry.choose_backend(None, iter([draw]).__next__)
            assert backend is not None
            picked[backend.version] += 1
    assert {version: 2 * share for version, share in traffic.items() if share} == dict(picked)


@given(traffics(), st.integers())
def test_a_version_without_traffic_is_only_served_by_name(traffic: dict[str, int], seed: int):
    entry = ModelEntry(model(traffic=traffic), 1)
    draw = random.Random(seed).random
    for version, share in traffic.items():
        asked = entry.choose_backend(version, draw)
        assert asked is not None
        assert asked.version == version
        if not share:
            drawn = [entry.choose_backend(None, draw) for _ in range(20)]
            assert all(backend is not None and backend.version != version for backend in drawn)


def test_a_version_that_is_not_there_is_not_replaced_by_another():
    assert ModelEntry(model(), 1).choose_backend("2", lambda: 0.0) is None


def test_a_model_without_backends_has_nothing_to_pick():
    assert ModelEntry(Model(name="wine"), 1).choose_backend(None, lambda: 0.0) is None


@pytest.mark.parametrize(
    "name",
    ["..", "a/b", "v2", "-", "Wine", "ünï", "a b", "x\x00", "x\r\nSet-Cookie: a=b", "\x1b[2J", "y" * 5000],
)
def test_a_hostile_name_is_reported_and_hides_no_other(name: str):
    snapshot = compile_snapshot(listing(document(model(name), name=name), document(model())))
    assert set(snapshot.entries) == {"wine"}
    (problem,) = snapshot.problems
    assert "models/" in problem


@pytest.mark.parametrize(
    "url",
    [
        *("", "//host", "host:80", "javascript:alert(1)", "file:///etc/passwd", "gopher://host/"),
        *("http://", "http://[::1", "http://host:0", "http://host:99999", "http://a b/", "http://ho\x00st/"),
        *(
            "http://user:secret@host/",
            "http://host/?q",
            "http://host/#f",
            "http://host/../../etc",
            "http://host\\@evil/",
        ),
        *("http://host/\r\nX-Evil: 1", "http://host/\u2028", "http://" + "h" * 300, "http://host/%2e%2e"),
    ],
)
def test_a_hostile_address_is_reported_and_hides_no_other(url: str):
    hostile = {"name": "evil", "backends": [{"version": "1", "url": url}], "traffic": {"1": 100}}
    snapshot = compile_snapshot(listing(document(hostile, name="evil"), document(model())))
    assert set(snapshot.entries) == {"wine"}
    (problem,) = snapshot.problems
    assert problem.startswith("models/evil revision 1: version 1: ")
    assert problem.isprintable(), "an address in a log is no order to a terminal"
    assert "secret" not in problem
    assert len(problem) < 500


def test_an_emergency_is_in_the_snapshot_and_is_logged_once(caplog: pytest.LogCaptureFixture):
    body = {
        "title": "wine@4",
        "by": "cy@example.com",
        "at": "2026-11-20T10:00Z",
        "review_due": "2026-11-23T10:00Z",
    }
    document = Document(kind=EMERGENCIES, name="1", revision=1, body=body)
    snapshot = compile_snapshot(MirroredListing(registry_id="r", generation=1, documents=(document,)))
    line = "wine@4 serves on one person's word since 2026-11-20T10:00Z; review by 2026-11-23T10:00Z: chips approvals 1"
    assert snapshot.emergencies == (line,)
    compile_snapshot(MirroredListing(registry_id="r", generation=2, documents=(document,)), snapshot)
    assert [record.getMessage() for record in caplog.records] == [f"EMERGENCY: {line}"]
