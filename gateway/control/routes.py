"""The routes that the gateway answers itself. They are health, readiness, model descriptions, and operators' pages (`/-/…`)."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_plus

from gateway import __version__
from gateway.auth.authenticator_chain import AuthenticatorChain
from gateway.auth.base import Authentication
from gateway.control.approval_pages import ApprovalPages
from gateway.control.console_assets import find_asset, prefers_html
from gateway.control.console_event_stream import EventStream
from gateway.control.dashboard_data import ORDERS, Dashboard
from gateway.control.openapi import openapi
from gateway.control.recorded_requests import RecordedRequests, number_parameter, parse_query
from gateway.control.registry_changes import KINDS, recent_changes
from gateway.control.rollout_view import rollout_document
from gateway.control.window_totals import DEFAULT_WINDOW, parse_window
from gateway.core.direct_response import Response, json_response
from gateway.core.errors import (
    AddressNotAllowed,
    BadRequest,
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    PageNotFound,
    RegistryUnavailable,
    Unauthenticated,
)
from gateway.core.exchange import Exchange
from gateway.core.ip_network_set import Address
from gateway.core.model import Model, Tensor
from gateway.core.principal import METADATA, OPERATE
from gateway.registry.base import Registry, RegistryError
from gateway.registry.mirror import Mirror
from gateway.registry.snapshot import Snapshot
from gateway.telemetry.prometheus_exposition import CONTENT_TYPE, render_exposition
from gateway.telemetry.recorded_request_store import RequestAndTickReader
from gateway.telemetry.worker_metrics_aggregation import SharedWorkerMetrics
from gateway.thread_and_task_supervisor import Supervisor

if TYPE_CHECKING:
    from gateway.control.health_and_openapi_cors import HealthAndOpenapiCors

_READ = frozenset({"GET", "HEAD"})
# Asked for by platforms, and the last by backends, from addresses that nobody can list.
_PROBES = frozenset({"/-/live", "/-/ready", "/v2/health/live", "/v2/health/ready", "/-/jwks.json"})
_APPROVALS = "/-/approvals/"
_NOTHING_HERE = "There is nothing here. GET / says what this gateway offers."
_NO_STORE = ((b"Cache-Control", b"no-store"),)


class ControlRoutes:
    """Answers the gateway's own routes.

    Operators' pages need the verb `operate` for the whole gateway.

    The console's own files hold nothing secret, so anybody may load them.
    """

    def __init__(
        self,
        mirror: Mirror,
        chain: AuthenticatorChain,
        *,
        registry: Registry,
        shared: SharedWorkerMetrics,
        reader: RequestAndTickReader | None,
        figures: RequestAndTickReader,
        admits: Callable[[Address | None], bool],
        supervisor: Supervisor | None = None,
        jwks: bytes = b'{"keys":[]}',
        cors: "HealthAndOpenapiCors | None" = None,
    ) -> None:
        # More parts of a model's page, from packages that this one must not know: each is called with the model's name.
        self.model_views: dict[str, Callable[[str], Awaitable[Any]]] = {"rollout": self._rollout}
        self._admits = admits  # whether a caller's address is on the allowlist
        self._cors = cors  # with web pages of other origins; None: nothing
        self._jwks = jwks  # the public keys by which backends check X-Chips-Caller-Token
        self.stopping = False
        self._mirror = mirror
        self._chain = chain
        self._registry = registry
        self._shared = shared
        self._board = Dashboard(mirror, shared, figures, supervisor=supervisor)
        self._requests = RecordedRequests(reader)
        self.live = EventStream(self._board, reader)
        self._approvals = ApprovalPages(registry, mirror)
        self._operate: dict[str, Callable[[Exchange], Awaitable[Response]]] = {
            "/-/metrics": self._metrics,
            "/-/overview": self._overview,
            "/-/models": self._models,
            "/-/requests": self._listed,
            "/-/callers": self._callers,
            "/-/history": self._history,
            "/-/cards": self._cards,
            "/-/approvals": self._approvals.list_newest_requests,
            "/-/emergencies": self._approvals.unreviewed_emergencies,
        }

    def is_health_probe(self, exchange: Exchange) -> bool:
        return exchange.target.path in _PROBES

    def is_model_description(self, exchange: Exchange) -> bool:
        """Whether the request asks what a model is, `GET /<model>`. It does not ask for a prediction then."""
        target = exchange.target
        return not target.rest and exchange.method in _READ

    async def answer(self, exchange: Exchange) -> None:
        path = exchange.target.path
        preflight = None if self._cors is None else await self._cors(exchange)
        if preflight is not None:
            await exchange.response.send(preflight)
            return
        if exchange.method == "POST" and path.startswith(_APPROVALS):
            await self._check_operator(exchange)
            decided = await self._approvals.store_signed_decision(exchange, path.removeprefix(_APPROVALS))
            await exchange.response.send(decided)
            return
        if exchange.method not in _READ:
            raise MethodNotAllowed("The methods allowed here are GET, HEAD.", allow="GET, HEAD")
        if path == "/-/events":
            await self._events(exchange)
            return
        answer = await self._answer(exchange, path)
        # Probes, scrapes and the console's files: where they go well there is nothing to tell.
        quiet = path in _PROBES or path == "/-/metrics" or path.startswith("/-/console/")
        exchange.unlogged = quiet and answer.status < 400
        await exchange.response.send(answer)

    async def _answer(self, exchange: Exchange, path: str) -> Response:
        if path in {"/-/live", "/v2/health/live"}:
            return json_response({"live": True})
        if path in {"/-/ready", "/v2/health/ready"}:
            return await self._ready(exchange)
        if path == "/-/jwks.json":
            fields = (
                (b"Content-Type", b"application/jwk-set+json"),
                (b"Cache-Control", b"public, max-age=300"),
            )
            return Response(200, fields, self._jwks)
        if path == "/":
            return await self._front_page(exchange)
        if path == "/v2":
            return json_response({"name": "chips", "version": __version__, "extensions": []})
        if path == "/-/openapi.json":
            authentication = await self._authentication(exchange)
            only = dict(parse_qsl(exchange.target.query.removeprefix("?"))).get("model")
            callable_ = self._callable(authentication)
            return json_response(openapi([m for m in callable_ if only is None or m.name == only]))
        if path in {"/-/console", "/-/docs"}:
            return Response(308, ((b"Location", path.encode() + b"/"), *_NO_STORE), b"")
        return await self._page(exchange, path)

    async def _page(self, exchange: Exchange, path: str) -> Response:
        for folder, page in (("/-/console/", ""), ("/-/docs/", "docs")):
            if path.startswith(folder):
                rest = path.removeprefix(folder)
                found = find_asset(rest or page, exchange.headers)
                if found is None:
                    raise PageNotFound(_NOTHING_HERE)
                return found
        operate = self._operate.get(path)
        if operate is not None:
            await self._check_operator(exchange)
            return await operate(exchange)
        if path.startswith(_APPROVALS):
            await self._check_operator(exchange)
            return await self._approvals.request_document(exchange, path.removeprefix(_APPROVALS))
        if path.startswith("/-/requests/"):
            await self._check_operator(exchange)
            found_requests = await self._requests.with_id(path.removeprefix("/-/requests/"))
            return json_response(found_requests, headers=_NO_STORE)
        if path.startswith("/-/models/"):
            await self._check_operator(exchange)
            window = _window(parse_query(exchange.target.query, {"window"}))
            name = path.removeprefix("/-/models/")
            model = await self._board.model_document(name, window)
            if model is None:
                raise PageNotFound("There is no such model in this registry.")
            more = {part: await view(name) for part, view in self.model_views.items()}
            return json_response({**model, **more}, headers=_NO_STORE)
        raise PageNotFound(_NOTHING_HERE)

    async def _rollout(self, name: str) -> dict[str, Any] | None:
        return await rollout_document(self._registry, self._mirror.snapshot, name)

    async def describe_model(self, exchange: Exchange) -> None:
        await exchange.response.send(json_response(_description(exchange.model)))

    async def _authentication(self, exchange: Exchange) -> Authentication | None:
        authentication = await self._chain(exchange.head)
        if authentication is not None and authentication.outside_networks:
            exchange.report_only_refusals += (AddressNotAllowed.code,)
        return authentication

    async def _check_operator(self, exchange: Exchange) -> None:
        authentication = await self._authentication(exchange)
        if authentication is None:
            raise Unauthenticated("This is for operators: send a key that may operate the gateway.")
        exchange.principal = authentication.principal
        if not authentication.principal.may(OPERATE):
            raise Forbidden(
                "Your key may not operate this gateway; its operator can make one: chips keys create --help"
            )

    async def _events(self, exchange: Exchange) -> None:
        await self._check_operator(exchange)
        asked = parse_query(exchange.target.query, {"only", "window"})
        window = _window(asked)
        if exchange.method == "HEAD":
            await exchange.response.send(Response(200, ((b"Content-Type", b"text/event-stream"),), b""))
            return
        await self.live(exchange, boards=asked.get("only") != "requests", window=window)

    async def _metrics(self, exchange: Exchange) -> Response:  # noqa: ARG002
        state = await self._board.totals_since_start()
        text = await asyncio.to_thread(render_exposition, state)  # megabytes, where there are many models
        return Response(200, ((b"Content-Type", CONTENT_TYPE), *_NO_STORE), text)

    async def _overview(self, exchange: Exchange) -> Response:
        window = _window(parse_query(exchange.target.query, {"window"}))
        return json_response(await self._board.overview_with_issues(window), headers=_NO_STORE)

    async def _models(self, exchange: Exchange) -> Response:
        """All models; a page of them, where one is asked for."""
        asked = parse_query(exchange.target.query, {"window", "find", "sort", "skip", "limit"})
        window = _window(asked)
        if not {"find", "sort", "skip", "limit"} & asked.keys():
            return json_response(await self._board.document(window), headers=_NO_STORE)
        order = asked.get("sort", "rps")
        if order not in ORDERS:
            raise BadRequest(f"sort must be one of {', '.join(ORDERS)}.")
        page = await self._board.models_page(
            window,
            find=asked.get("find", ""),
            order=order,
            skip=int(number_parameter(asked, "skip", 0)),
            limit=min(int(number_parameter(asked, "limit", 50)), 500),
        )
        return json_response(page, headers=_NO_STORE)

    async def _listed(self, exchange: Exchange) -> Response:
        return json_response(await self._requests.page(exchange.target.query), headers=_NO_STORE)

    async def _callers(self, exchange: Exchange) -> Response:  # noqa: ARG002
        return json_response(await self._board.callers_since_start(), headers=_NO_STORE)

    async def _history(self, exchange: Exchange) -> Response:
        asked = parse_query(exchange.target.query, {"model", "kind", "limit"})
        kind = asked.get("kind", "")
        if kind and kind not in KINDS:
            raise BadRequest(f"kind must be one of {', '.join(KINDS)}.")
        limit = max(1, min(int(number_parameter(asked, "limit", 100)), 1000))
        found = await recent_changes(self._registry, kind=kind, name=asked.get("model") or None, limit=limit)
        return json_response(found, headers=_NO_STORE)

    async def _cards(self, exchange: Exchange) -> Response:
        """The model cards of one model's versions."""
        name = parse_query(exchange.target.query, {"model"}).get("model", "")
        snapshot = self._mirror.snapshot
        entry = snapshot.entries.get(name) if snapshot is not None else None
        if entry is None:
            raise PageNotFound("There is no such model in this registry.")
        from gateway.artifacts.model_cards_from_registry import read_registered_cards

        try:
            cards = await read_registered_cards(self._registry, entry.model)
        except RegistryError as error:
            raise RegistryUnavailable(
                "The registry does not answer, so the model cards cannot be shown."
            ) from error
        return json_response({"cards": cards}, headers=_NO_STORE)

    async def _ready(self, exchange: Exchange) -> Response:
        """Ready or not, to anybody; what is served and how old it is, to callers that may see the registry."""
        mirror = self._mirror
        snapshot = mirror.snapshot
        may_see = await self._may_see_registry(exchange, snapshot)
        if self.stopping:  # a balancer that checks on a kept connection sends its next callers elsewhere
            return json_response({"ready": False, "status": "stopping"}, status=503)
        if snapshot is None:
            more = {"status": "waiting for the registry", "version": __version__} if may_see else {}
            return json_response({"ready": False, **more}, status=503)
        if not may_see:
            return json_response({"ready": True})
        return json_response(
            {
                "ready": True,
                "status": "ready",
                "version": __version__,
                "registry": {
                    "id": snapshot.registry_id,
                    "generation": snapshot.generation,
                    "age_s": round(mirror.age_s, 3),
                    "source": mirror.source,
                    "connected": mirror.connected,
                    "held": mirror.held or None,
                    "models": len(snapshot.entries),
                    "problems": len(snapshot.problems),
                },
            }
        )

    async def _may_see_registry(self, exchange: Exchange, snapshot: Snapshot | None) -> bool:
        """An operator, from an admitted address; or who names the registry's id, and so can read the registry itself.

        A probe comes from any address, so strangers must not be able to try credentials out here, nor fail by them.
        """
        if snapshot is not None:
            name, _, named = unquote_plus(exchange.target.query).partition("=")
            if name == "?registry" and hmac.compare_digest(named.encode(), snapshot.registry_id.encode()):
                return True
        if not self._admits(exchange.address):
            return False
        try:
            authentication = await self._authentication(exchange)
        except GatewayError:
            return False
        return authentication is not None and authentication.principal.may(OPERATE)

    async def _front_page(self, exchange: Exchange) -> Response:
        """For a browser the page of the models; for every other program the same as JSON."""
        exchange.added_lines += b"Vary: Accept\r\n"
        page = find_asset("docs", exchange.headers) if prefers_html(exchange.headers) else None
        return page or await self._index(exchange)

    async def _index(self, exchange: Exchange) -> Response:
        authentication = await self._authentication(exchange)
        return json_response(
            {
                "name": "CHIPS",
                "version": __version__,
                "about": "One address for machine-learning models: POST /<model> to score, GET /<model> to learn about it.",
                "caller": None
                if authentication is None
                else {"id": authentication.principal.id, "label": authentication.principal.label},
                "models": [
                    {"name": model.name, "description": model.description, "url": f"/{model.name}"}
                    for model in self._callable(authentication)
                ],
                "docs": "/-/docs/",
            }
        )

    def _callable(self, authentication: Authentication | None) -> list[Model]:
        """The models that this caller may know of, by name."""
        snapshot = self._mirror.snapshot
        models = [] if snapshot is None else [entry.model for entry in snapshot.entries.values()]
        return [
            model
            for model in sorted(models, key=lambda model: model.name)
            if model.enabled
            and (
                model.policy.access == "public"
                or (authentication is not None and authentication.principal.may(METADATA, model.name))
            )
        ]


def _window(asked: Mapping[str, str]) -> str:
    return parse_window(asked.get("window", DEFAULT_WINDOW))


def _description(model: Model) -> dict[str, object]:
    """What a caller may know of a model: not where it runs, nor who may call it."""
    return {
        "name": model.name,
        "description": model.description,
        "owner": model.owner,
        "versions": [
            {
                "version": backend.version,
                "traffic": model.traffic.get(backend.version, 0),
                "platform": backend.platform,
                "inputs": [_tensor(tensor) for tensor in backend.inputs],
                "outputs": [_tensor(tensor) for tensor in backend.outputs],
            }
            for backend in model.backends
        ],
        "timeout_s": model.policy.timeout_s,
        "score": {"method": "POST", "url": f"/{model.name}", "content_type": "application/json"},
    }


def _tensor(tensor: Tensor) -> dict[str, object]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
