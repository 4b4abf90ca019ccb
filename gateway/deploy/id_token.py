"""Fetch an ID token for calls to a deployed backend.

The token names the user or service account that is logged in here; Cloud Run checks it.
"""

import shutil
import subprocess

from gateway.deploy.target import DeployError

_GCLOUD_TIMEOUT_S = 60
_EX_NOPERM = 77


def fetch_id_token(audience: str) -> str:
    """Fetch an ID token for `audience`.

    It is a token of the logged-in identity: a service account's by Google's library, a person's by gcloud. Raises
    DeployError.
    """
    from google.auth import exceptions
    from google.auth.transport.requests import Request
    from google.oauth2 import id_token

    try:
        token: str = id_token.fetch_id_token(Request(), audience)
    except exceptions.GoogleAuthError as error:
        return _by_gcloud(audience, error)
    return token


def _by_gcloud(audience: str, error: Exception) -> str:
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        raise DeployError(
            f"no identity to call {audience} with: {error}",
            hint="log in as a service account (GOOGLE_APPLICATION_CREDENTIALS), or install gcloud and run gcloud auth login",
            code=_EX_NOPERM,
        ) from error
    done = subprocess.run(  # noqa: S603
        [gcloud, "auth", "print-identity-token"],
        capture_output=True,
        text=True,
        timeout=_GCLOUD_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise DeployError(
            f"no identity to call {audience} with: {done.stderr.strip()[:300]}",
            hint="gcloud auth login",
            code=_EX_NOPERM,
        ) from error
    return done.stdout.strip()
