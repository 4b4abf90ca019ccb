"""An API key's document: a newer release's fields are ignored, and every mistake is refused."""

from typing import Any

import pytest

from gateway.core.api_key_document import Key, parse_key
from gateway.core.model_updates import to_document


def test_a_keys_document_is_read():
    key = Key(label="ci", models=("wine",), created="2026-01-01T00:00:00Z", expires="2027-01-01T00:00:00Z")
    assert parse_key(to_document(key) | {"later": 1}) == key


@pytest.mark.parametrize(
    "change",
    [
        {"label": 7},
        {"models": "wine"},
        {"models": [1]},
        {"expires": "soon"},
        {"expires": "2027-01-01T00:00:00"},
    ],
)
def test_a_keys_document_that_is_wrong_is_refused(change: dict[str, Any]):
    with pytest.raises(ValueError, match=r"."):
        parse_key({"label": "ci", "models": ["*"], "created": "2026-01-01T00:00:00Z"} | change)
