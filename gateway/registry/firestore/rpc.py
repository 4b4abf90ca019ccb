"""The calls to Firestore that a registry needs, each bounded in time and none retried.

Google's client retries for minutes, and its `timeout` does not bound that; `retry=None` with a `timeout` does. Importing
this module imports Google's packages, which takes some 250 ms: do it in a thread.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import Any, Final, NamedTuple

import google.auth
import google.auth.exceptions
import grpc
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport
from google.cloud.firestore_v1.types import common, document, firestore, query, write

from gateway.registry.base import RegistryError, Unavailable
from gateway.registry.firestore.document_layout import Fields, FirestoreDocument, document_from_protobuf
from gateway.registry.firestore.listen_change_aggregator import TARGET_ID
from gateway.registry.firestore.location import FirestoreLocation

_READ_S: Final = 5.0
_QUERY_S: Final = 60.0  # a whole registry
_COMMIT_S: Final = 10.0

_CHANNEL: Final = [
    ("grpc.max_receive_message_length", -1),
    # A peer that vanished is noticed after 40 s, not 90. `grpc.keepalive_timeout_ms` has no effect.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    # gRPC's own back-off grows to two minutes; ours, with jitter, is in the mirror.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # which is how long connecting may take
    ("grpc.max_reconnect_backoff_ms", 2_000),
]

_NOT_WRITTEN = (
    exceptions.InvalidArgument,
    exceptions.PermissionDenied,
    exceptions.Unauthenticated,
    exceptions.ResourceExhausted,
    exceptions.MethodNotImplemented,
)
_PRECONDITION = (
    exceptions.FailedPrecondition,
    exceptions.AlreadyExists,
    exceptions.NotFound,
    exceptions.Aborted,
)


class PreconditionFailed(Exception):
    """A commit's precondition failed. Another writer was first; nothing was written."""


class CommitOutcomeUnknown(Exception):
    """A commit got no answer, so its outcome is unknown. It was applied whole or not at all."""


class DocumentWrite(NamedTuple):
    """One write of a commit, with its precondition."""

    collection: str
    identity: str
    fields: Fields
    updated: Any | None  # the document as it was read; None: there must be none


def find_default_credentials(location: FirestoreLocation) -> Any:
    """Google's application default credentials. Blocks, because it may ask the metadata server."""
    if location.emulator:
        return AnonymousCredentials()
    try:
        return google.auth.default(scopes=FirestoreGrpcAsyncIOTransport.AUTH_SCOPES)[0]
    except google.auth.exceptions.GoogleAuthError as error:
        raise RegistryError(
            f"no Google credentials for {location}: {error} "
            "Run `gcloud auth application-default login`, or give the service an account."
        ) from error


class FirestoreRpc:
    """Makes a registry's calls to Firestore. It has one gRPC channel. Make it inside the event loop that uses it."""

    def __init__(self, location: FirestoreLocation, credentials: Any) -> None:
        self._place = location
        self._database = f"projects/{location.project}/databases/{location.database}"
        self._documents = f"{self._database}/documents"
        self._metadata = [("google-cloud-resource-prefix", self._database)]
        self._client = self._connect(location.emulator, credentials)

    def _connect(self, emulator: str, credentials: Any) -> FirestoreAsyncClient:
        transport = FirestoreGrpcAsyncIOTransport
        if emulator:
            self._metadata.append(("authorization", "Bearer owner"))
            channel = grpc.aio.insecure_channel(emulator, options=_CHANNEL)
            return FirestoreAsyncClient(transport=transport(channel=channel, credentials=credentials))
        channel = transport.create_channel(credentials=credentials, options=_CHANNEL)
        return FirestoreAsyncClient(transport=transport(channel=channel))

    async def close(self) -> None:
        await self._client.transport.close()

    # -- reading

    async def get(self, *wanted: tuple[str, str]) -> dict[tuple[str, str], FirestoreDocument]:
        """Get documents by (collection, id). The result has those of `wanted` that exist, all as of one moment."""
        names = {f"{self._documents}/{collection}/{i}": (collection, i) for collection, i in wanted}
        found = {}
        try:
            answers = await self._client.batch_get_documents(
                request=firestore.BatchGetDocumentsRequest(database=self._database, documents=list(names)),
                retry=None,
                timeout=_READ_S,
                metadata=self._metadata,
            )
            async for answer in answers:
                message = firestore.BatchGetDocumentsResponse.pb(answer)
                if message.HasField("found"):
                    found[names[message.found.name]] = document_from_protobuf(message.found)
        except Exception as error:
            raise self._explain(error) from error
        return found

    async def query(
        self,
        collection: str,
        *,
        first: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        **equal: str,
    ) -> AsyncIterator[FirestoreDocument]:
        """Query the documents of a collection.

        They come in the order of their ids, from `first` to before `end`; their fields are `equal`. Firestore's
        automatic indexes are enough for it.
        """
        conditions = [_condition(name, "EQUAL", _value(value)) for name, value in equal.items()]
        for operator, identity in (("GREATER_THAN_OR_EQUAL", first), ("LESS_THAN", end)):
            if identity is not None:
                name = f"{self._documents}/{collection}/{identity}"
                conditions.append(_condition("__name__", operator, document.Value(reference_value=name)))
        wanted = _structured(collection, conditions)
        if limit is not None:
            wanted.limit = limit
        try:
            answers = await self._client.run_query(
                request=firestore.RunQueryRequest(parent=self._documents, structured_query=wanted),
                retry=None,
                timeout=_QUERY_S,
                metadata=self._metadata,
            )
            async for answer in answers:
                message = firestore.RunQueryResponse.pb(answer)
                if message.HasField("document"):
                    yield document_from_protobuf(message.document)
        except Exception as error:
            raise self._explain(error) from error

    async def listen(self, collection: str, since: int) -> AsyncGenerator[Any, None]:
        """Listen to a collection's documents from generation `since` on.

        Yields Firestore's raw messages. Ends with an exception.
        """
        target = firestore.Target(
            target_id=TARGET_ID,
            query=firestore.Target.QueryTarget(
                parent=self._documents,
                structured_query=_structured(
                    collection, [_condition("generation", "GREATER_THAN_OR_EQUAL", _value(since))]
                ),
            ),
        )

        async def requests() -> AsyncIterator[firestore.ListenRequest]:
            yield firestore.ListenRequest(database=self._database, add_target=target)
            await done.wait()  # the half that sends stays open as long as the stream is wanted

        done = asyncio.Event()
        stream = None
        try:
            # retry=None above all: a retry would send what was left of `requests`, nothing, and wait for ever.
            stream = await self._client.listen(
                requests=requests(), retry=None, timeout=None, metadata=self._metadata
            )
            async for answer in stream:
                if answer is None:  # grpc.aio's way to say that the bytes were no message
                    raise Unavailable("Firestore sent a message that cannot be read")
                yield firestore.ListenResponse.pb(answer)
            raise Unavailable("Firestore ended the stream")
        except RegistryError:
            raise
        except Exception as error:
            raise self._explain(error) from error
        finally:
            done.set()
            if stream is not None:
                stream.cancel()

    # -- writing

    async def commit(self, writes: Sequence[DocumentWrite]) -> None:
        """Write all of `writes` or none.

        Raises PreconditionFailed or RegistryError where nothing was written, and CommitOutcomeUnknown where that is not known.
        """
        request = firestore.CommitRequest(
            database=self._database, writes=[self._write(one) for one in writes]
        )
        try:
            await self._client.commit(request=request, retry=None, timeout=_COMMIT_S, metadata=self._metadata)
        except _PRECONDITION as error:
            raise PreconditionFailed(str(error)) from error
        except _NOT_WRITTEN as error:
            raise self._explain(error) from error
        except (exceptions.GoogleAPIError, grpc.RpcError) as error:
            raise CommitOutcomeUnknown(str(error)) from error

    async def delete(self, collection: str, identity: str) -> None:
        """Delete a document, if it is there. Raises RegistryError."""
        name = f"{self._documents}/{collection}/{identity}"
        request = firestore.CommitRequest(database=self._database, writes=[write.Write(delete=name)])
        try:
            await self._client.commit(request=request, retry=None, timeout=_COMMIT_S, metadata=self._metadata)
        except Exception as error:
            raise self._explain(error) from error

    def _write(self, one: DocumentWrite) -> write.Write:
        condition = (
            common.Precondition(exists=False)
            if one.updated is None
            else common.Precondition(update_time=one.updated)
        )
        fields = {name: _value(value) for name, value in one.fields.items()}
        return write.Write(
            update=document.Document(
                name=f"{self._documents}/{one.collection}/{one.identity}", fields=fields
            ),
            current_document=condition,
        )

    def _explain(self, error: Exception) -> RegistryError:
        """Say what to do. What may pass by itself is Unavailable."""
        text = str(getattr(error, "message", "") or error)[:300]
        if isinstance(error, RegistryError):
            return error
        if isinstance(error, exceptions.PermissionDenied):
            return RegistryError(
                f"permission denied at {self._place}: {text} "
                "A gateway needs roles/datastore.viewer, a registrar roles/datastore.user; see docs/how-to/permissions.md"
            )
        if isinstance(error, exceptions.NotFound):
            return RegistryError(
                f"{self._place} is not there: {text} Create it with `gcloud firestore databases create`, or correct "
                "the registry's URL."
            )
        if isinstance(error, (exceptions.InvalidArgument, exceptions.FailedPrecondition)):
            return RegistryError(f"{self._place} refuses the request: {text}")
        if isinstance(error, exceptions.Unauthenticated):
            return Unavailable(f"{self._place} does not accept our credentials (now): {text}")
        return Unavailable(f"{self._place} does not answer: {text or type(error).__name__}")


def _value(value: str | int | None) -> document.Value:
    if value is None:
        return document.Value(null_value=0)
    if isinstance(value, int):
        return document.Value(integer_value=value)
    return document.Value(string_value=value)


def _condition(name: str, operator: str, value: document.Value) -> query.StructuredQuery.Filter:
    return query.StructuredQuery.Filter(
        field_filter=query.StructuredQuery.FieldFilter(
            field=query.StructuredQuery.FieldReference(field_path=name),
            op=query.StructuredQuery.FieldFilter.Operator[operator],
            value=value,
        )
    )


def _structured(collection: str, conditions: Iterable[query.StructuredQuery.Filter]) -> query.StructuredQuery:
    conditions = list(conditions)
    wanted = query.StructuredQuery(from_=[query.StructuredQuery.CollectionSelector(collection_id=collection)])
    if len(conditions) == 1:
        wanted.where = conditions[0]
    elif conditions:
        wanted.where = query.StructuredQuery.Filter(
            composite_filter=query.StructuredQuery.CompositeFilter(
                op=query.StructuredQuery.CompositeFilter.Operator.AND, filters=conditions
            )
        )
    return wanted
