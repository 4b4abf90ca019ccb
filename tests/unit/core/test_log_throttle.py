"""One line now and then for what happens all the time."""

import logging

import pytest

from gateway.core.log_throttle import LogThrottle


def test_a_kind_is_told_once_and_later_how_often_it_happened(caplog: pytest.LogCaptureFixture):
    now = 0.0
    notices = LogThrottle(logging.getLogger("test"), every_s=30, now=lambda: now)
    for number in range(100):
        notices.warning("a", "it is full: %d", number)
    notices.warning("b", "another thing")
    now = 31.0
    notices.warning("a", "it is full: %d", 7)
    now = 62.0
    notices.warning("a", "it is full: %d", 8)
    assert [record.getMessage() for record in caplog.records] == [
        "it is full: 0",
        "another thing",
        "it is full: 7; 99 more since the last line about it",
        "it is full: 8",
    ]
