"""How old evidence may be: its time is what the requester says, so none of it is from a time to come."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from gateway.core.version_evidence import CARD, VERIFY
from gateway.signoff.approval_subject import Subject
from gateway.signoff.environment_policy import parse_policy_toml
from gateway.signoff.required_evidence import evidence_problems
from tests.unit.signoff.people import People

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return People(tmp_path_factory.mktemp("people"))


@pytest.mark.parametrize(
    ("written_at", "counts"),
    [
        ((NOW - timedelta(days=7)).isoformat(), True),
        ((NOW - timedelta(days=7, seconds=1)).isoformat(), False),
        ((NOW + timedelta(minutes=5)).isoformat(), True),
        ((NOW + timedelta(minutes=6)).isoformat(), False),
        ("9999-12-31T23:59:59Z", False),
        ("2026-03-01T00:00:00", False),
        ("yesterday", False),
        (None, False),
        (7, False),
    ],
)
def test_evidence_that_is_too_old_or_from_a_time_to_come(people: People, written_at: Any, counts: bool):
    policy = msgspec.structs.replace(
        parse_policy_toml(people.policy(evidence=f'"{VERIFY}", "{CARD}"')), evidence_days=7.0
    )
    record = {"passed": True, "written_at": written_at}
    subject = Subject(environment="e", sign_off="s", model="wine", version="4")
    found = evidence_problems(policy, {VERIFY: record, CARD: {"passed": True}}, subject, NOW)
    assert [text.partition(":")[0] for text in found] == (
        [] if counts else [f"the evidence {VERIFY} has expired"]
    )
