"""Answers the console's requests about approvals, as JSON.

It lists the requests for approval and the unreviewed emergencies, shows one request, and stores the signed decisions that
people hand in.

A request's page shows all that a decision binds. A decision is worth what its signature is worth: the key of the
operator who sends it opens the page and decides nothing.
"""

import asyncio
import base64
import binascii
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import msgspec

from gateway.control.recorded_requests import parse_query
from gateway.core.direct_response import Response, json_response
from gateway.core.errors import (
    BadRequest,
    Forbidden,
    PageNotFound,
    PayloadTooLarge,
    RegistryUnavailable,
)
from gateway.core.exchange import BUFFERED_BODY_BYTES, Exchange
from gateway.registry.base import (
    EMERGENCIES,
    MODELS,
    SIGN_OFF,
    SIGN_OFF_POLICY,
    Conflict,
    Document,
    Registry,
    RegistryError,
)
from gateway.registry.mirror import Mirror

if TYPE_CHECKING:
    from gateway.signoff.read_sign_off_records import IssuerKeyCache, SignOffRecords

_SHOWN: Final = 50  # requests, the newest
_BODY_S: Final = 10.0
_NO_STORE: Final = ((b"Cache-Control", b"no-store"),)


class _HandedIn(msgspec.Struct, forbid_unknown_fields=True):
    payload: str  # base64
    kind: str  # ssh, or token
    signature: str


class ApprovalPages:
    """Answers the console's requests about approvals and emergencies, as JSON.

    They are below /-/approvals and /-/emergencies. The caller must be an operator: `ControlRoutes` checks that.
    """

    def __init__(self, registry: Registry, mirror: Mirror) -> None:
        self._registry = registry
        self._mirror = mirror
        self._issuer_key_cache: IssuerKeyCache | None = None  # its module is imported with the first page

    async def unreviewed_emergencies(self, exchange: Exchange) -> Response:  # noqa: ARG002
        """Answer with the emergencies that nobody else has reviewed yet. They serve on one person's word."""
        snapshot = self._mirror.snapshot
        if snapshot is None or not snapshot.emergencies:
            return json_response({"emergencies": []}, headers=_NO_STORE)
        try:
            documents = await self._registry.list(EMERGENCIES)
        except RegistryError:  # the banner stays
            return json_response(
                {"emergencies": [{"title": one} for one in snapshot.emergencies]}, headers=_NO_STORE
            )
        return json_response({"emergencies": [_emergency(one) for one in documents]}, headers=_NO_STORE)

    async def list_newest_requests(self, exchange: Exchange) -> Response:  # noqa: ARG002
        """Answer with the newest requests for approval, at most `_SHOWN`. The newest comes first; `more`: there are others."""
        policy, records = await self._read()
        if records is None:
            return json_response({"policy": policy is not None, "requests": []}, headers=_NO_STORE)
        from gateway.signoff.approval_review_document import request_summary

        found = await _checked(lambda: [request_summary(document, records) for document in records.requests])
        found.sort(key=lambda one: one.get("requested_at", ""), reverse=True)
        return json_response(
            {"policy": True, "requests": found[:_SHOWN], "more": len(found) > _SHOWN}, headers=_NO_STORE
        )

    async def request_document(self, exchange: Exchange, path: str) -> Response:
        """Answer with one request for approval and all that a decision binds, as JSON.

        `/statement` below it is what a person would sign.
        """
        approval_request_id, _, rest = path.partition("/")
        policy, records, document = await self._find(approval_request_id)
        if rest == "statement":
            return await self._statement(exchange, records, document)
        if rest:
            raise PageNotFound("There is nothing here.")
        from gateway.signoff.approval_review_document import review_document

        try:
            model = await self._registry.read(MODELS, _model_of(document))
        except RegistryError as error:
            raise _away() from error
        found = await _checked(lambda: review_document(document, records, model, policy))
        return json_response(found, headers=_NO_STORE)

    async def store_signed_decision(self, exchange: Exchange, approval_request_id: str) -> Response:
        """Check and store a decision that a person signed elsewhere. It approves or rejects a request."""
        _check_origin(exchange)
        given = await _body(exchange)
        policy, records, document = await self._find(approval_request_id, decides=True)
        from gateway.signoff.externally_signed_decisions import (
            DecisionNotAccepted,
            verify_decision,
            write_decision,
        )

        try:
            payload = base64.b64decode(given.payload.encode(), validate=True)
            signature = given.signature.strip().encode() + (b"\n" if given.kind == "ssh" else b"")
            judged = await _checked(
                lambda: verify_decision(document, records, payload, given.kind, signature)
            )
            await write_decision(self._registry, judged, policy)
        except binascii.Error:
            raise BadRequest("payload must be base64.") from None
        except DecisionNotAccepted as error:
            raise Forbidden(f"This decision does not count: {error}.") from None
        except Conflict:
            raise BadRequest(
                "Somebody decided at the same moment. Look at the request again, and sign again."
            ) from None
        except RegistryError as error:
            raise RegistryUnavailable(
                "The registry did not take it: perhaps this gateway may only read it. Decide at a terminal: chips approve."
            ) from error
        said = judged.signed.predicate
        return json_response({"decision": said.decision, "by": said.by}, headers=_NO_STORE)

    async def _statement(self, exchange: Exchange, records: "SignOffRecords", document: Document) -> Response:
        asked = parse_query(exchange.target.query, {"decision", "by", "reason", "back"})
        decision = asked.get("decision", "")
        from gateway.signoff.externally_signed_decisions import (
            DECISIONS,
            DecisionNotAccepted,
            prepare_statement,
        )

        if decision not in DECISIONS:
            raise BadRequest(f"decision must be one of {', '.join(DECISIONS)}.")
        reason = asked.get("reason", "")[:2000]
        try:
            made = await _checked(
                lambda: prepare_statement(document, records, decision, asked.get("by", ""), reason)  # type: ignore[arg-type]
            )
        except DecisionNotAccepted as error:
            raise BadRequest(f"This cannot be signed: {error}.") from None
        return json_response(
            {
                "payload": base64.b64encode(made.payload).decode(),
                "signed_bytes": base64.b64encode(made.signed_bytes).decode(),
                "nonce": made.nonce,
                "sign_in": await _sign_in(made.issuer, made.client, made.nonce, asked.get("back", "")),
            },
            headers=_NO_STORE,
        )

    async def _find(
        self, approval_request_id: str, *, decides: bool = False
    ) -> "tuple[Document, SignOffRecords, Document]":
        policy, records = await self._read(decides=decides)
        document = next(
            (one for one in records.requests if one.name == approval_request_id)
            if records is not None
            else iter(()),
            None,
        )
        if policy is None or records is None or document is None:
            raise PageNotFound("There is no such request for approval.")
        return policy, records, document

    async def _read(self, *, decides: bool = False) -> "tuple[Document | None, SignOffRecords | None]":
        """The policy, and its records: with the issuers' present keys where it `decides`, else with recent ones."""
        try:
            policy = await self._registry.read(SIGN_OFF, SIGN_OFF_POLICY)
            if policy is None:  # before the import, which takes a while
                return None, None
            from gateway.signoff.read_sign_off_records import (
                IssuerKeyCache,
                parse_stored_policy,
                read_requests_and_keys,
            )

            recent = self._issuer_key_cache = self._issuer_key_cache or IssuerKeyCache()
            stored = parse_stored_policy(policy)
            return policy, await read_requests_and_keys(self._registry, stored, None if decides else recent)
        except RegistryError as error:
            raise _away() from error
        except ValueError as error:
            raise RegistryUnavailable(
                "The sign-off policy in the registry cannot be read: chips doctor."
            ) from error


async def _checked(work: Any) -> Any:
    """Signatures are verified by programs, which must not hold up other requests."""
    from gateway.signoff.ssh_keygen_signature import SshKeygenError

    try:
        return await asyncio.to_thread(work)
    except SshKeygenError as error:
        raise RegistryUnavailable(f"No signature can be checked on this gateway: {error}.") from error


def _away() -> RegistryUnavailable:
    return RegistryUnavailable("The registry does not answer, so requests for approval cannot be shown.")


def _emergency(document: Document) -> dict[str, Any]:
    said = {
        name: str(document.body.get(name, ""))[:500] for name in ("title", "by", "at", "reason", "review_due")
    }
    try:
        overdue = datetime.fromisoformat(said["review_due"]) < datetime.now(UTC)
    except (ValueError, TypeError):
        overdue = True
    return {"id": document.name, **said, "overdue": overdue}


def _model_of(document: Document) -> str:
    """The model that a request is about; no document has the name of another kind of request."""
    return str(document.body.get("title", "")).rpartition("@")[0] or "-"


async def _sign_in(issuer: str, client: str, nonce: str, back: str) -> str:
    """Where to go to sign by an identity token (OpenID Connect Core 3.2.2.1); empty where that is not possible."""
    if not issuer or not back:
        return ""
    from gateway.auth.jwks import fetch_authorization_endpoint

    endpoint = await fetch_authorization_endpoint(issuer)
    asked = {
        "response_type": "id_token",
        "response_mode": "fragment",
        "scope": "openid email",
        "client_id": client,
        "redirect_uri": back,
        "nonce": nonce,
        "state": nonce.rpartition(":")[2],
        "prompt": "select_account",
    }
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}" if endpoint else ""


def _check_origin(exchange: Exchange) -> None:
    """A decision comes from the console's own page. A key in a header cannot be forged, an identity proxy's cookie can."""
    fields = {name.lower(): value for name, value in exchange.headers}
    site, origin = fields.get(b"sec-fetch-site"), fields.get(b"origin", b"")
    same = origin.partition(b"://")[2] == fields.get(b"host", b"")
    if not origin or not same or site not in {None, b"same-origin"}:
        raise Forbidden("Decisions are taken from this gateway's own console, or by chips approve.")
    if fields.get(b"content-type", b"").partition(b";")[0].strip() != b"application/json":
        raise BadRequest("Content-Type must be application/json.")


async def _body(exchange: Exchange) -> _HandedIn:
    body = exchange.body
    if not body.complete:
        await body.buffer_start(time.monotonic() + _BODY_S)
    content = body.buffered_body() if body.complete else None
    if content is None or len(content) > BUFFERED_BODY_BYTES:
        raise PayloadTooLarge(BUFFERED_BODY_BYTES)
    try:
        return msgspec.json.decode(content, type=_HandedIn)
    except (msgspec.MsgspecError, RecursionError):
        raise BadRequest("The body must be JSON with payload, kind and signature.") from None
