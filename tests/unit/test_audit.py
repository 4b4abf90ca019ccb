"""What is made of pip-audit's report: above all, that nothing looked at is not taken for nothing found."""

from typing import Any

from tests.house.audit import EX_FOUND, EX_UNAVAILABLE, judge

GOOD: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}
BAD: dict[str, Any] = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI and could not be audited: c (1)"}


def test_nothing_looked_at_is_no_success():
    code, lines = judge({"dependencies": [SKIPPED, SKIPPED], "fixes": []})
    assert code == EX_UNAVAILABLE
    assert "none of the 2 pinned packages" in lines[0]


def test_what_was_found_is_told():
    code, lines = judge({"dependencies": [GOOD, BAD], "fixes": []})
    assert code == EX_FOUND
    assert lines == [
        "b 2: PYSEC-1, fixed in 3",
        "2 packages looked up: 1 known vulnerabilities",
    ]


def test_nothing_found_is_told_with_what_was_left_out():
    code, lines = judge({"dependencies": [GOOD, SKIPPED], "fixes": []})
    assert code == 0
    assert lines == [
        "not looked up, since the index does not know them: c",
        "1 packages looked up: no known vulnerabilities",
    ]
