"""Post OTLP messages over HTTP. Imported only in the threads that export traces and metrics."""

import time
from typing import Any


class OtlpClient:
    """An HTTP client that posts OTLP messages. OpenTelemetry's exporters would retry for longer than a stop may take."""

    def __init__(self, url: str) -> None:
        import requests

        self._url = url
        self._session: Any = requests.Session()
        if url.startswith("https://telemetry.googleapis.com/"):
            import google.auth
            from google.auth.transport.requests import AuthorizedSession

            credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
            self._session = AuthorizedSession(credentials)

    def __call__(self, message: bytes, timeout_s: float) -> None:
        began = time.monotonic()
        answer = self._session.post(
            self._url, data=message, headers={"Content-Type": "application/x-protobuf"}, timeout=timeout_s
        )
        if (
            answer.status_code in {429, 502, 503, 504}
            and (left_s := timeout_s - (time.monotonic() - began)) > 0.5
        ):
            time.sleep(0.2)  # once: a collector that restarts
            answer = self._session.post(
                self._url, data=message, headers={"Content-Type": "application/x-protobuf"}, timeout=left_s
            )
        answer.raise_for_status()

    def close(self) -> None:
        self._session.close()
