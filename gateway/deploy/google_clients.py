"""The clients of Google Cloud's APIs that a deployment needs. Each is made when it is first needed."""

from collections.abc import Callable
from contextlib import closing
from functools import cached_property
from typing import Any

from google.api_core import exceptions

from gateway.deploy.id_token import fetch_id_token
from gateway.deploy.target import DeployError
from gateway.make_cloud_storage_client import make_storage_client


class GoogleClients:
    """The clients of Google Cloud's APIs, made when first needed.

    `endpoint` may give another address for a service, or an empty text.

    The services are `run`, `cloudbuild` and `artifactregistry`. An address that begins with http:// is a stand-in on this
    machine, and gets no credentials.
    """

    def __init__(self, endpoint: Callable[[str], str] = lambda _: "") -> None:
        self._endpoint = endpoint

    @cached_property
    def services(self) -> Any:
        from google.cloud import run_v2
        from google.cloud.run_v2.services.services.transports import ServicesRestTransport

        return run_v2.ServicesClient(transport=self._transport(ServicesRestTransport, "run"))

    @cached_property
    def builds(self) -> Any:
        from google.cloud.devtools import cloudbuild_v1
        from google.cloud.devtools.cloudbuild_v1.services.cloud_build.transports import (
            CloudBuildRestTransport,
        )

        return cloudbuild_v1.CloudBuildClient(
            transport=self._transport(CloudBuildRestTransport, "cloudbuild")
        )

    @cached_property
    def images(self) -> Any:
        from google.cloud import artifactregistry_v1
        from google.cloud.artifactregistry_v1.services.artifact_registry.transports import (
            ArtifactRegistryRestTransport,
        )

        return artifactregistry_v1.ArtifactRegistryClient(
            transport=self._transport(ArtifactRegistryRestTransport, "artifactregistry")
        )

    def upload_if_absent(self, bucket: str, path: str, content: bytes) -> None:
        """Upload `content` to Cloud Storage unless an object of that name exists.

        The name is its digest, so the content is the same.
        """
        try:
            with closing(make_storage_client()) as client:
                blob = client.bucket(bucket).blob(path)
                blob.upload_from_string(content, content_type="application/gzip", if_generation_match=0)
        except exceptions.PreconditionFailed:
            return
        except exceptions.GoogleAPICallError as error:
            raise DeployError(
                f"the sources cannot be stored in gs://{bucket}: {error.message}", code=77
            ) from error

    def id_token(self, audience: str) -> str:
        """Get an ID token for `audience`. It is empty where Cloud Run is a stand-in on this machine."""
        return "" if self._endpoint("run").startswith("http://") else fetch_id_token(audience)

    def _transport(self, kind: Any, service: str) -> Any:
        address = self._endpoint(service)
        if not address:
            return kind()
        scheme, _, host = address.partition("://")
        if scheme == "http":
            from google.auth.credentials import AnonymousCredentials

            return kind(host=host, url_scheme=scheme, credentials=AnonymousCredentials())
        return kind(host=host)
