"""Apply the model's CORS policy. It answers preflights, and adds the fields that let a browser's page read the response."""

from gateway.core.direct_response import Response
from gateway.core.errors import Forbidden
from gateway.core.exchange import Exchange
from gateway.core.header_classification import ORIGIN

_TAKES = frozenset({"GET", "HEAD", "POST"})
_TAKES_BELOW = _TAKES | {"PUT", "PATCH", "DELETE"}


class Cors:
    """Apply the model's CORS policy to the response.

    Errors get its fields, too. It grants no access: authentication and authorization follow.
    """

    def __call__(self, exchange: Exchange) -> Response | None:
        """The response to a preflight, which ends the request; None for any other request."""
        cors = exchange.compiled_policy.cors
        if cors is None:
            return None
        origin = exchange.head.read[ORIGIN]
        if exchange.method == "OPTIONS" and origin is not None:
            asked = _field(exchange, b"access-control-request-method")
            if asked:
                takes = _TAKES_BELOW if exchange.target.rest else _TAKES
                headers = _field(exchange, b"access-control-request-headers")
                fields = cors.preflight_fields(origin, asked, headers, takes)
                if fields is None:
                    exchange.added_lines += cors.vary_and_cors_lines(None)
                    raise Forbidden(
                        "This model's CORS policy does not allow that page to send such a request."
                    )
                return Response(204, fields, b"")
        exchange.added_lines += cors.vary_and_cors_lines(origin)
        return None


def _field(exchange: Exchange, wanted: bytes) -> str:
    return ",".join(value.decode("latin-1") for name, value in exchange.headers if name.lower() == wanted)
