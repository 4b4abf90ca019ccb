"""Make a client of Google Cloud Storage: that of Google's library, without the requests for its own telemetry."""

import os
from typing import Any, Final

# Since 3.13 the library asks for each bucket's metadata in a thread of its own, for spans that nobody reads: one more request,
# which needs a permission of its own, and a connection that stays open where the client was closed meanwhile.
_NO_BUCKET_METADATA: Final = "DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"


def make_storage_client(**options: Any) -> Any:
    """Make a `google.cloud.storage.Client`, which the caller closes.

    `options` are its own. Raises what it raises (google.auth.exceptions).
    """
    from google.cloud import storage

    os.environ.setdefault(_NO_BUCKET_METADATA, "true")  # noqa: TID251  (the library reads it there)
    return storage.Client(**options)
