"""A Firestore server that does what the test says: what the emulator never does, it can.

The emulator tells every change by RESET and everything again; it sends no deltas, no existence filters, rejects no stream
and lets no token expire. Here each Listen stream is a script; the other calls answer from memory.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.cloud.firestore_v1.types import document, firestore
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from gateway.registry.firestore.document_layout import (
    Fields,
    document_from_protobuf,
    encode_head,
    encode_stored,
)
from gateway.registry.firestore.listen_change_aggregator import TARGET_ID

Response = firestore.ListenResponse.pb()
Document = document.Document.pb()
_TYPES = firestore.TargetChange.TargetChangeType

Step = Any  # a message, bytes, a grpc.StatusCode to end with, or an awaitable to wait for
Script = Callable[["FakeFirestore", int], list[Step]]


def moment(number: int) -> Timestamp:
    return Timestamp(seconds=1_700_000_000 + number)


def pb_document(path: str, fields: Fields, updated: int) -> Any:
    found = Document(name=path, update_time=moment(updated), create_time=moment(1))
    for name, value in fields.items():
        if value is None:
            found.fields[name].null_value = 0
        elif isinstance(value, int):
            found.fields[name].integer_value = value
        else:
            found.fields[name].string_value = value
    return found


def target_change(
    kind: str, *, mine: bool = True, read: int = 0, cause: tuple[int, str] | None = None
) -> Any:
    message = Response()
    message.target_change.target_change_type = int(_TYPES[kind])
    if mine:
        message.target_change.target_ids.append(TARGET_ID)
    if read:
        message.target_change.read_time.CopyFrom(moment(read))
        message.target_change.resume_token = b"token"
    if cause is not None:
        message.target_change.cause.CopyFrom(Status(code=cause[0], message=cause[1]))
    return message


def consistent(read: int = 1) -> Any:
    return target_change("NO_CHANGE", mine=False, read=read)


def existence_filter(count: int) -> Any:
    message = Response()
    message.filter.target_id = TARGET_ID
    message.filter.count = count
    return message


class FakeFirestore:
    """One registry of the given models at a generation. `scripts` are for the Listen streams, the last for all further."""

    def __init__(self, *, registry_id: str = "one") -> None:
        self.documents: dict[str, tuple[Fields, int]] = {}  # by collection/id
        self.generation = 0
        self.registry_id = registry_id
        self.scripts: list[Script] = []
        self.streams = 0
        self.asked_since: list[int] = []
        self.refuse: dict[str, grpc.StatusCode] = {}  # by method: answer this
        self.calls: list[str] = []
        self.before_answer: Callable[[str], Awaitable[None]] | None = None
        self.root = ""

    # -- what the test does

    def set(self, name: str, **body: Any) -> None:
        """Write a model, as a registrar would."""
        import json

        self.generation += 1
        old = self.documents.get(f"chips-mirror/models:{name}")
        revision = old[0]["revision"] + 1 if old else 1
        text = json.dumps({"name": name, **body})
        fields = encode_stored("models", name, revision, self.generation, text)
        self.documents[f"chips-mirror/models:{name}"] = (fields, self.generation)
        self._set_head()

    def wipe(self, registry_id: str) -> None:
        self.documents.clear()
        self.registry_id, self.generation = registry_id, 0
        self._set_head()

    def _set_head(self) -> None:
        from gateway.registry.base import Head, now_rfc3339

        fields = encode_head(
            Head(registry_id=self.registry_id, generation=self.generation), "w", now_rfc3339()
        )
        self.documents["chips-mirror/head"] = (fields, self.generation)

    def told(self, *identities: str) -> list[Any]:
        """document_change messages for what lies at `identities` now."""
        messages = []
        for identity in identities:
            fields, updated = self.documents[f"chips-mirror/{identity}"]
            message = Response()
            message.document_change.document.CopyFrom(
                pb_document(f"{self.root}/chips-mirror/{identity}", fields, updated)
            )
            message.document_change.target_ids.append(TARGET_ID)
            messages.append(message)
        return messages

    def removed(self, identity: str) -> Any:
        message = Response()
        message.document_delete.document = f"{self.root}/chips-mirror/{identity}"
        message.document_delete.removed_target_ids.append(TARGET_ID)
        return message

    def initial(self, since: int) -> list[Any]:
        """The first, consistent state of a stream: everything of generation `since` and later."""
        matching = [
            identity.partition("/")[2]
            for identity, (fields, _) in self.documents.items()
            if identity.startswith("chips-mirror/") and fields.get("generation", -1) >= since
        ]
        return [
            target_change("ADD"),
            *self.told(*matching),
            target_change("CURRENT", read=1),
            consistent(),
        ]

    # -- what the server does

    async def start(self) -> str:
        """Returns host:port."""
        self._server = grpc.aio.server()
        types = {
            "Listen": (firestore.ListenRequest, self._listen, grpc.stream_stream_rpc_method_handler),
            "RunQuery": (firestore.RunQueryRequest, self._run_query, grpc.unary_stream_rpc_method_handler),
            "BatchGetDocuments": (
                firestore.BatchGetDocumentsRequest,
                self._batch_get,
                grpc.unary_stream_rpc_method_handler,
            ),
            "Commit": (firestore.CommitRequest, self._commit, grpc.unary_unary_rpc_method_handler),
        }
        handlers = {
            name: make(
                method,
                request_deserializer=request.pb().FromString,
                response_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
            )
            for name, (request, method, make) in types.items()
        }
        service = grpc.method_handlers_generic_handler("google.firestore.v1.Firestore", handlers)
        self._server.add_generic_rpc_handlers((service,))
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._server.stop(0)

    async def _enter(self, method: str, context: Any) -> None:
        self.calls.append(method)
        if method in self.refuse:
            await context.abort(self.refuse[method], "refused by the test")

    async def _listen(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        request = await anext(aiter(requests))
        self.root = request.database + "/documents"
        condition = request.add_target.query.structured_query.where.field_filter
        since = condition.value.integer_value
        assert condition.field.field_path == "generation"
        self.asked_since.append(since)
        script = self.scripts[min(self.streams, len(self.scripts) - 1)]
        self.streams += 1
        await self._enter("Listen", context)
        for step in script(self, since):
            if isinstance(step, grpc.StatusCode):
                await context.abort(step, "scripted")
            elif callable(step):
                for message in await step():
                    yield message
            else:
                yield step

    async def _run_query(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._enter("RunQuery", context)
        collection = request.structured_query.from_[0].collection_id
        for identity, (fields, updated) in sorted(self.documents.items()):
            if identity.startswith(f"{collection}/"):
                answer = firestore.RunQueryResponse.pb()()
                answer.document.CopyFrom(pb_document(f"{request.parent}/{identity}", fields, updated))
                yield answer

    async def _batch_get(self, request: Any, context: Any) -> AsyncIterator[Any]:
        await self._enter("BatchGetDocuments", context)
        for path in request.documents:
            answer = firestore.BatchGetDocumentsResponse.pb()()
            identity = path.partition("/documents/")[2]
            if identity in self.documents:
                answer.found.CopyFrom(pb_document(path, *self.documents[identity]))
            else:
                answer.missing = path
            yield answer

    async def _commit(self, request: Any, context: Any) -> Any:
        await self._enter("Commit", context)
        for write in request.writes:
            identity = write.update.name.partition("/documents/")[2]
            known = self.documents.get(identity)
            wanted = write.current_document
            if wanted.WhichOneof("condition_type") == "exists":
                if known is not None:
                    await context.abort(grpc.StatusCode.ALREADY_EXISTS, identity)
            elif known is None or moment(known[1]) != wanted.update_time:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, identity)
        updated = 1 + max((when for _, when in self.documents.values()), default=0)
        for write in request.writes:
            fields = document_from_protobuf(write.update).fields
            self.documents[write.update.name.partition("/documents/")[2]] = (fields, updated)
            if "registry_id" in fields:
                self.generation = fields["generation"]
        if self.before_answer is not None:
            await self.before_answer("Commit")
        return firestore.CommitResponse.pb()()


async def hang() -> list[Any]:
    await asyncio.Event().wait()
    return []
