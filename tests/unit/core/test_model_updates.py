"""How a model's document changes: traffic adds up, nothing unknown is lost, nothing equal is called different."""

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Backend, Model, Policy, Tensor, model_problems, parse_model
from gateway.core.model_updates import (
    differences,
    merge_document,
    remove_version_and_rescale,
    shift_traffic,
    with_backend,
)


def backend(version: str, **fields: Any) -> Backend:
    return Backend(version=version, url=f"http://backend-{version}", **fields)


def model(traffic: dict[str, int], **fields: Any) -> Model:
    return Model(
        name="wine", backends=tuple(backend(version) for version in traffic), traffic=traffic, **fields
    )


def stored(document: dict[str, Any]) -> dict[str, Any]:
    """A document as a registry gives it back."""
    read: dict[str, Any] = json.loads(msgspec.json.encode(document))
    return read


@st.composite
def traffics(draw: st.DrawFn, *, least: int = 1) -> dict[str, int]:
    """Percents by version that add up to 100; zeros among them."""
    cuts = draw(st.lists(st.integers(0, 100), min_size=least - 1, max_size=6))
    edges = [0, *sorted(cuts), 100]
    return {str(n + 1): after - before for n, (before, after) in enumerate(pairwise(edges))}


models = st.builds(
    Model,
    name=st.just("wine"),
    description=st.text(max_size=5),
    enabled=st.booleans(),
    policy=st.builds(Policy, timeout_s=st.floats(1, 9), max_in_flight=st.none() | st.integers(1, 9)),
    backends=st.lists(
        st.builds(
            Backend,
            version=st.sampled_from(["1", "2", "1.2", "a-b"]),
            url=st.just("http://backend"),
            concurrency=st.none() | st.integers(1, 9),
            inputs=st.lists(
                st.builds(
                    Tensor,
                    name=st.sampled_from("xyz"),
                    datatype=st.just("FP64"),
                    shape=st.just(()) | st.just((-1, 4)),
                ),
                unique_by=lambda tensor: tensor.name,
                max_size=3,
            ).map(tuple),
        ),
        unique_by=lambda known: known.version,
        max_size=3,
    ).map(tuple),
    traffic=st.dictionaries(st.sampled_from(["1", "2", "1.2"]), st.integers(0, 100)),
)


# -- traffic


def test_the_first_version_takes_everything():
    made = with_backend(Model(name="wine"), backend("1"), None)
    assert made.traffic == {"1": 100}
    assert model_problems(made) == []


def test_a_further_version_takes_nothing_until_it_is_told_to():
    made = with_backend(model({"1": 70, "2": 30}), backend("3"), None)
    assert made.traffic == {"1": 70, "2": 30, "3": 0}
    assert [known.version for known in made.backends] == ["1", "2", "3"]


def test_a_version_that_is_registered_again_keeps_its_place_and_its_traffic():
    again = backend("1", platform="onnx")
    made = with_backend(model({"1": 70, "2": 30}), again, None)
    assert made.backends == (again, backend("2"))
    assert made.traffic == {"1": 70, "2": 30}


def test_the_others_make_room_in_proportion():
    assert with_backend(model({"1": 60, "2": 40}), backend("3"), 10).traffic == {"1": 54, "2": 36, "3": 10}


def test_what_rounding_leaves_over_goes_to_those_who_lost_most():
    assert shift_traffic({"1": 34, "2": 33, "3": 33}, "4", 1) == {"1": 33, "2": 33, "3": 33, "4": 1}


@pytest.mark.parametrize("percent", [0, 99])
def test_an_only_version_must_take_everything(percent: int):
    with pytest.raises(ValueError, match=r"no other version takes the remaining \d+ %"):
        with_backend(Model(name="wine"), backend("1"), percent)


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_percentage_lies_between_0_and_100(percent: int):
    with pytest.raises(ValueError, match=f"{percent} is not a percentage"):
        shift_traffic({"1": 100}, "1", percent)


@given(traffics(), st.sampled_from(["1", "2", "new"]), st.integers(0, 100))
def test_shifted_traffic_adds_up_and_stays_fair(traffic: dict[str, int], version: str, percent: int):
    others = {name: share for name, share in traffic.items() if name != version}
    total = sum(others.values())
    if percent < 100 and not total:
        with pytest.raises(ValueError, match="no other version"):
            shift_traffic(traffic, version, percent)
        return
    shifted = shift_traffic(traffic, version, percent)
    assert shifted[version] == percent
    assert sum(shifted.values()) == 100
    assert set(shifted) == {*traffic, version}
    for name, share in others.items():
        exact = share * (100 - percent) / total if total else 0
        assert abs(shifted[name] - exact) < 1
        assert share or not shifted[name], "a version without traffic gets none by somebody else's change"


@given(traffics(), st.data())
def test_shifting_to_what_it_has_changes_nothing(traffic: dict[str, int], data: st.DataObject):
    version = data.draw(st.sampled_from(sorted(traffic)))
    assert shift_traffic(traffic, version, traffic[version]) == traffic


@given(traffics(least=2), st.data())
def test_without_a_version_the_others_take_over(traffic: dict[str, int], data: st.DataObject):
    version = data.draw(st.sampled_from(sorted(traffic)))
    if traffic[version] == 100:
        with pytest.raises(ValueError, match="no other version"):
            remove_version_and_rescale(model(traffic), version)
        return
    left = remove_version_and_rescale(model(traffic), version)
    assert model_problems(left) == []
    assert left.backend(version) is None
    assert version not in left.traffic
    if not traffic[version]:
        assert left.traffic == {name: share for name, share in traffic.items() if name != version}


# -- documents


@given(models)
def test_a_new_document_reads_back_as_the_model(wanted: Model):
    assert msgspec.convert(stored(merge_document(None, wanted)), Model) == wanted


@given(models, models)
def test_a_merged_document_reads_back_as_the_new_model(old: Model, new: Model):
    assert msgspec.convert(stored(merge_document(stored(merge_document(None, old)), new)), Model) == new


def test_what_a_newer_release_wrote_is_kept():
    old = stored(merge_document(None, model({"1": 50, "2": 50}, policy=Policy(timeout_s=5))))
    old["labels"] = {"team": "cellar"}
    old["policy"]["retries"] = 2
    old["backends"][1]["region"] = "europe-west1"
    changed = remove_version_and_rescale(parse_model(old), "1")
    merged = merge_document(old, changed)
    assert merged["labels"] == {"team": "cellar"}
    assert merged["policy"] == {"timeout_s": 5.0, "retries": 2}
    assert [(known["version"], known.get("region")) for known in merged["backends"]] == [
        ("2", "europe-west1")
    ]


def test_what_a_newer_release_wrote_into_a_policy_of_defaults_is_kept():
    merged = merge_document({"name": "wine", "policy": {"retries": 2}}, Model(name="wine"))
    assert merged["policy"] == {"retries": 2}


def test_what_a_newer_release_wrote_about_an_input_is_kept():
    old = stored(
        merge_document(
            None,
            Model(
                name="wine",
                backends=(backend("1", inputs=(Tensor(name="alcohol", datatype="FP64"),)),),
                traffic={"1": 100},
            ),
        )
    )
    old["backends"][0]["inputs"][0]["unit"] = "% vol"
    merged = merge_document(old, parse_model(old))
    assert merged["backends"][0]["inputs"][0]["unit"] == "% vol"


def test_a_field_that_went_back_to_its_default_goes():
    old = stored(merge_document(None, model({"1": 100}, owner="ana", enabled=False)))
    merged = merge_document(old, model({"1": 100}))
    assert "owner" not in merged
    assert "enabled" not in merged


# -- differences


@given(models.filter(lambda wanted: wanted.backends))
def test_the_same_again_is_no_difference(wanted: Model):
    before = stored(merge_document(None, wanted))
    assert differences(before, merge_document(before, wanted)) == []


def test_everything_of_a_new_document_is_a_difference():
    found = differences(None, {"name": "wine", "traffic": {"1": 100}})
    assert found == [("name", None, "wine"), ("traffic.1", None, 100)]


def test_differences_name_the_place_by_version():
    old = {
        "name": "wine",
        "backends": [{"version": "1", "url": "http://a"}, {"version": "2", "url": "http://b"}],
    }
    new = {
        "name": "wine",
        "backends": [{"version": "2", "url": "http://c"}, {"version": "1", "url": "http://a"}],
    }
    assert differences(old, new) == [("version 2: url", "http://b", "http://c")]


def test_what_is_gone_is_a_difference_too():
    old = {"owner": "ana", "backends": [{"version": "1", "url": "http://a"}]}
    assert differences(old, {"backends": []}) == [
        ("owner", "ana", None),
        ("version 1: url", "http://a", None),
    ]


@given(st.one_of(st.none(), models), models)
def test_no_difference_means_the_same_model(old: Model | None, new: Model):
    before = None if old is None else stored(merge_document(None, old))
    after = stored(merge_document(None, new))
    assert bool(differences(before, after)) == (before != after or before is None)
