"""Which changes of a model need approvals: what a version is and how it may be called, never a shift of traffic."""

from typing import Any

import msgspec
import pytest

from gateway.core.model import Backend, Model, Policy, parse_model
from gateway.core.model_updates import merge_document
from gateway.core.sticky_shares import StickyShares
from gateway.signoff.enforce_policy import _affected


def _wine(**changes: Any) -> Model:
    model = Model(
        name="wine",
        backends=(Backend(version="3", url="http://a"), Backend(version="4", url="http://b")),
        traffic={"3": 75, "4": 25},
        sticky=StickyShares(by="caller", seed="0" * 32),
    )
    return parse_model(merge_document(None, msgspec.structs.replace(model, **changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"traffic": {"3": 100, "4": 0}},
        {"enabled": False},
        {"sticky": None},
        {"sticky": StickyShares(by="key", seed="1" * 32), "traffic": {"3": 100, "4": 0}},
    ],
)
def test_nobody_waits_for_a_signature_to_take_a_bad_version_out_of_service(changes: dict[str, Any]):
    """Sticky shares are slots in the model's document, and those follow the traffic."""
    assert _affected(_wine(), _wine(**changes)) == []


def test_another_policy_concerns_the_versions_that_take_traffic():
    changes = {"policy": Policy(access="public"), "traffic": {"3": 100, "4": 0}}
    assert [one.version for one in _affected(_wine(), _wine(**changes))] == ["3"]
