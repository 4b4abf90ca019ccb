"""A key of ours ends at the gateway, also where it was written wrongly."""

import pytest

from gateway.auth.api_key import ApiKeyAuthenticator
from gateway.core.api_keys import make_key

KEYS = ApiKeyAuthenticator.__new__(ApiKeyAuthenticator)  # what is asked here needs no registry


@pytest.mark.parametrize(
    "form", ["Bearer {}", "bearer {}", "Bearer  {}", "Bearer\t{}", "{}", "Token {}", "Basic {}"]
)
def test_a_key_in_authorization_is_ours_however_it_is_written(form: str):
    value = form.format(make_key()).encode()
    assert KEYS.owns_authorization(value)


def test_another_credential_is_not():
    assert not KEYS.owns_authorization(b"Bearer eyJhbGciOiJSUzI1NiJ9.e30.x")
