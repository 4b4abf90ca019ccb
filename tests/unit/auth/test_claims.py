"""A key of ours ends at the gateway, also where it was written wrongly."""

import pytest

from gateway.auth.api_key import ApiKeys
from gateway.core.keys import make_key

KEYS = ApiKeys.__new__(ApiKeys)  # what is asked here needs no registry


@pytest.mark.parametrize(
    "form", ["Bearer {}", "bearer {}", "Bearer  {}", "Bearer\t{}", "{}", "Token {}", "Basic {}"]
)
def test_a_key_in_authorization_is_ours_however_it_is_written(form: str):
    value = form.format(make_key()).encode()
    assert KEYS.claims(value)


def test_another_credential_is_not():
    assert not KEYS.claims(b"Bearer eyJhbGciOiJSUzI1NiJ9.e30.x")
