"""The error for a backend that did not answer in time. The limit was the model's time-out or the caller's own deadline."""

from gateway.core.errors import DeadlineExceeded, UpstreamError, UpstreamTimeout
from gateway.core.exchange import Exchange


def timeout_or_deadline_error(exchange: Exchange) -> UpstreamError:
    """The error for a time-out, or for a passed deadline.

    It is UpstreamTimeout where the model's time-out passed, and DeadlineExceeded where the caller's own deadline did.
    """
    model = exchange.model
    allowed_s = exchange.deadline - exchange.arrived
    if allowed_s < model.policy.timeout_s - 1e-6:  # the difference of two clock readings is not exact
        return DeadlineExceeded(
            f"The backend did not answer within the {allowed_s * 1000:.0f} ms you allowed."
        )
    return UpstreamTimeout(f'The model "{model.name}" did not answer within {allowed_s:g} seconds.')
