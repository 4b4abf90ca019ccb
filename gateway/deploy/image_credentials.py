"""Find the credentials for an image registry.

They are Google's application default credentials, or those of `docker login`. Artifact Registry and Container Registry take
an OAuth access token as the password of `oauth2accesstoken`
(https://cloud.google.com/artifact-registry/docs/docker/authentication#token).
"""

import base64
import binascii
import json
from pathlib import Path
from typing import Final

from gateway.deploy.target import DeployError

_GOOGLE: Final = (".pkg.dev", ".gcr.io")
_SCOPES: Final = ["https://www.googleapis.com/auth/cloud-platform"]


def find_credentials(host: str, docker_folder: Path) -> tuple[str, str] | None:
    """The user and password for an image registry. None where there are none.

    `host` includes its port. Raises DeployError.
    """
    kept = _docker_login(host, docker_folder)
    if kept is not None:
        return kept
    return ("oauth2accesstoken", _google_access_token()) if f".{host}".endswith(_GOOGLE) else None


def _docker_login(host: str, folder: Path) -> tuple[str, str] | None:

    try:
        entry = json.loads((folder / "config.json").read_bytes())["auths"][host]["auth"]
        user, colon, password = base64.b64decode(entry, validate=True).decode().partition(":")
    except (OSError, ValueError, KeyError, TypeError, binascii.Error):
        return None  # no login for this host, or one that a helper of docker's keeps
    return (user, password) if colon else None


def _google_access_token() -> str:
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    try:
        credentials, _ = google.auth.default(scopes=_SCOPES)
        credentials.refresh(Request())
    except GoogleAuthError as error:
        raise DeployError(
            f"no credentials for Google's registry of images: {error}; gcloud auth application-default login"
        ) from None
    return str(credentials.token)
