"""Where a Firestore registry lies: good URLs, and hostile ones."""

from urllib.parse import urlsplit

import pytest

from gateway.registry.firestore.location import FirestoreLocation, parse_location
from gateway.registry.open_by_url import open_registry


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("firestore://my-project", FirestoreLocation("my-project", "(default)", "chips", "")),
        ("firestore://my-project/", FirestoreLocation("my-project", "(default)", "chips", "")),
        ("firestore://my-project/(default)", FirestoreLocation("my-project", "(default)", "chips", "")),
        ("firestore://my-project/%28default%29", FirestoreLocation("my-project", "(default)", "chips", "")),
        ("firestore://my-project/prod?prefix=a_B-1", FirestoreLocation("my-project", "prod", "a_B-1", "")),
        (
            "firestore://example.com:my-project/prod",
            FirestoreLocation("example.com:my-project", "prod", "chips", ""),
        ),
        (
            "firestore://my-project?emulator=127.0.0.1:8080",
            FirestoreLocation("my-project", "(default)", "chips", "127.0.0.1:8080"),
        ),
        (
            "firestore://my-project?emulator=[::1]:80",
            FirestoreLocation("my-project", "(default)", "chips", "[::1]:80"),
        ),
    ],
)
def test_a_place(url: str, place: FirestoreLocation):
    assert parse_location(urlsplit(url)) == place


@pytest.mark.parametrize(
    "url",
    [
        "firestore:",
        "firestore:///prod",
        "firestore://P",
        "firestore://my-project/a/b",
        "firestore://my-project/../x",
        "firestore://my-project/prod?prefix=",
        "firestore://my-project/prod?prefix=a/b",
        "firestore://my-project/prod?prefix=__a__",
        "firestore://my-project/prod?prefix=" + "x" * 41,
        "firestore://my-project/prod?praefix=a",
        "firestore://my-project/prod?prefix",
        "firestore://my-project/prod#x",
        "firestore://user:secret@my-project/prod",
        "firestore://my-project%00/prod",
        "firestore://my-project/%0a",
        "firestore://my-project?emulator=http://x",
        "firestore://my-project?emulator=host",
    ],
)
def test_what_is_no_place(url: str):
    with pytest.raises(ValueError, match="a Firestore registry is written") as caught:
        open_registry(url)
    assert "secret" not in str(caught.value)


def test_the_variable_that_all_clients_of_google_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "localhost:8080")
    assert parse_location(urlsplit("firestore://my-project")).emulator == "localhost:8080"
