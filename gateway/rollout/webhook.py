"""Signs a message and posts it to a webhook.

Signature and headers are those of the Standard Webhooks specification (standardwebhooks.com).

webhook-id          differs for each message, the same when it is sent again
webhook-timestamp   seconds since the epoch
webhook-signature   v1,BASE64(HMAC-SHA256(secret, "ID.TIMESTAMP.BODY"))

A secret is whsec_ and the key in base64, as the specification writes it, or any other text, whose bytes are the key.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import time
from typing import Any, Final

import aiohttp
import msgspec

_log = logging.getLogger(__name__)

_TRIES: Final = 3
_TIMEOUT_S: Final = 10.0
_DELAY_S: Final = 2.0
_PREFIX: Final = "whsec_"


def webhook_key(secret: str) -> bytes:
    """The signing key in a webhook's secret. Raises ValueError where what follows whsec_ is no base64, or nothing."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    if not key:
        raise ValueError("nothing follows whsec_")
    return key


def webhook_signature(secret: str, identity: str, timestamp: int, body: bytes) -> str:
    """The signature of a webhook message. It is the value of the header `webhook-signature`."""
    signed = f"{identity}.{timestamp}.".encode() + body
    digest = hmac.new(webhook_key(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


async def post_webhook_with_retries(url: str, secret: str, identity: str, message: dict[str, Any]) -> bool:
    """Post a signed message to a webhook, up to three times. Returns whether it was accepted (2xx).

    Redirects are not followed. Never raises.
    """
    body = msgspec.json.encode(message)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        why = ""
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(_DELAY_S)
            now = int(time.time())
            headers = {
                "Content-Type": "application/json",
                "webhook-id": identity,
                "webhook-timestamp": str(now),
                "webhook-signature": webhook_signature(secret, identity, now, body),
            }
            try:
                async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                    if 200 <= answer.status < 300:
                        return True
                    why = f"status {answer.status}"
            except (
                aiohttp.ClientError,
                TimeoutError,
                OSError,
                ValueError,
            ) as error:  # no such name can exist
                why = type(error).__name__
        _log.error("the rollout's webhook was not told: %s after %d attempts", why, _TRIES)
        return False
