"""A client of Google's JSON APIs, which give prices and bills.

It has the credentials of the command's user (application default credentials).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import requests

_TIMEOUT_S: Final = 60.0
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
_SHOWN: Final = 300  # characters of an error that a server wrote


class GoogleApiError(Exception):
    """A Google API cannot be asked, or does not answer as documented. The text is for an operator."""


class GoogleApi:
    """A client of the Google API at `address`. An address that begins with http:// is a stand-in, which gets no credentials."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._session: requests.Session | None = None

    def get(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """GET `path` and return the JSON object of the answer. Raises GoogleApiError."""
        return self._call("GET", path, params=query)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST a JSON document and return the JSON object of the answer. Raises GoogleApiError."""
        return self._call("POST", path, json=body)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def _call(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        import requests
        from google.auth.exceptions import GoogleAuthError

        try:
            if self._session is None:
                self._session = self._open()
            answer = self._session.request(method, f"{self._address}/{path}", timeout=_TIMEOUT_S, **content)
            document = answer.json()
        except (requests.RequestException, GoogleAuthError, ValueError) as error:
            raise GoogleApiError(f"{self._address} cannot be asked: {str(error)[:_SHOWN]}") from error
        if not isinstance(document, dict):
            raise GoogleApiError(f"{self._address}/{path} does not answer with a JSON object")
        if answer.status_code >= 400:
            details = document.get("error")
            said = details.get("message", "") if isinstance(details, dict) else ""
            raise GoogleApiError(f"{self._address}/{path} answers {answer.status_code}: {str(said)[:_SHOWN]}")
        return document

    def _open(self) -> "requests.Session":
        import requests

        if self._address.startswith("http://"):
            return requests.Session()
        import google.auth
        from google.auth.transport.requests import AuthorizedSession

        credentials, _ = google.auth.default(scopes=list(_SCOPES))
        session: requests.Session = AuthorizedSession(credentials)
        return session
