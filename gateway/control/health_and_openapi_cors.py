"""CORS for the pages that describe the gateway, such as health and OpenAPI.

They also describe its models and its public keys (JWKS). Operators' pages and the console are shared with no other
origin. aiohttp-cors decides. That library is made for aiohttp's router. Our fast path has none, and the plain one needs
none, so it is given a router adapter, its own way of being used with another router. What it does not do is done here:
`Vary: Origin` on every answer.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp_cors import CorsConfig, ResourceOptions
from aiohttp_cors.abc import AbstractRouterAdapter
from multidict import CIMultiDict

from gateway.core.direct_response import Response, field_lines
from gateway.core.errors import Forbidden, HeaderList
from gateway.core.exchange import Exchange
from gateway.core.model_cors_policy import OWN_FIELDS, VARY, CorsRule

# What describes the gateway and its models. Operators' pages and the console are shared with nobody.
PATHS: Final = (
    "/",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/-/live",
    "/-/ready",
    "/-/jwks.json",
    "/-/openapi.json",
    "/-/docs",
    "/-/docs/",
)
_METHODS: Final = frozenset({"GET", "HEAD"})
# A key or token goes in a header of its own, so cookies are never asked for.
_RULE: Final = CorsRule(
    allow_headers=("Authorization", "Content-Type", "X-Api-Key", "X-Request-Id", "Traceparent"),
    expose_headers=OWN_FIELDS,
    max_age=600,
)

_Preflight = Callable[[Any], Awaitable[web.StreamResponse]]
_Config = Mapping[str, ResourceOptions]


class HealthAndOpenapiCors:
    """Apply CORS, so that web pages of `origins` may read `PATHS`. `*` is every origin."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._routes = _Routes()
        app = web.Application()
        cors = CorsConfig(app, router_adapter=self._routes)
        options = _RULE.options()
        for path in PATHS:
            cors.add(path, dict.fromkeys(origins, options))
        self._prepare = app.on_response_prepare
        self._prepare.freeze()

    async def __call__(self, exchange: Exchange) -> Response | None:
        """The answer to a preflight; otherwise None, and whatever answer follows gets its fields."""
        path = exchange.target.path
        handler = self._routes.preflights.get(path)
        if handler is None:
            return None
        exchange.added_lines += field_lines((VARY,))
        asked: Any = _Asked(exchange, path)
        if self._routes.is_preflight_request(asked):
            try:
                return Response(204, _fields(await handler(asked)), b"")
            except web.HTTPForbidden:
                raise Forbidden(
                    "This gateway's settings (edge.cors_origins) do not allow that page to send such a request."
                ) from None
        response = web.Response()
        await self._prepare.send(asked, response)
        exchange.added_lines += field_lines(_fields(response))
        return None


class _Asked:
    """As much of a request as aiohttp-cors and the adapter look at."""

    def __init__(self, exchange: Exchange, path: str) -> None:
        self.method = exchange.method
        self.path = path
        self.headers = CIMultiDict(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in exchange.headers
        )


class _Routes(AbstractRouterAdapter):
    """A routing entity is a path, taken literally."""

    def __init__(self) -> None:
        self.preflights: dict[str, _Preflight] = {}
        self._configs: dict[str, _Config] = {}

    def add_preflight_handler(
        self,
        routing_entity: str,
        handler: _Preflight,
        webview: bool = False,  # noqa: ARG002, FBT001, FBT002
    ) -> None:
        self.preflights[routing_entity] = handler

    def set_config_for_routing_entity(self, routing_entity: str, config: _Config) -> None:
        self._configs[routing_entity] = config

    def is_preflight_request(self, request: web.Request) -> bool:
        return request.method == "OPTIONS" and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers

    def is_cors_enabled_on_request(self, request: web.Request) -> bool:
        return request.path in self._configs

    async def get_preflight_request_config(
        self,
        preflight_request: web.Request,
        origin: str,  # noqa: ARG002
        requested_method: str,
    ) -> _Config:
        if requested_method not in _METHODS:
            raise KeyError(requested_method)
        return self._configs[preflight_request.path]

    def get_non_preflight_request_config(self, request: web.Request) -> _Config:
        return self._configs[request.path]


def _fields(response: web.StreamResponse) -> HeaderList:
    return tuple(
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers.items()
        if name.lower().startswith("access-control-")
    )
