"""What a webhook gets, and what happens when it does not want it."""

import base64
import hashlib
import hmac
import json
import re

import pytest
from aiohttp import web

from gateway.rollout import webhook

MESSAGE = {"type": "rollout.step", "model": "wine", "state": "returned"}


class Receiver:
    def __init__(self) -> None:
        self.answers = [200]
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def __aenter__(self) -> "Receiver":
        app = web.Application()
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.got.append(
            ({name.lower(): value for name, value in request.headers.items()}, await request.read())
        )
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "_DELAY_S", 0.0)


@pytest.mark.parametrize("secret", ["secret", "whsec_c2VjcmV0"])
async def test_a_message_is_signed_as_standard_webhooks_are(secret: str):
    async with Receiver() as receiver:
        assert await webhook.post_webhook_with_retries(receiver.url, secret, "r1-3", MESSAGE)
    ((fields, body),) = receiver.got
    signed = f"r1-3.{fields['webhook-timestamp']}.".encode() + body
    digest = hmac.new(b"secret", signed, hashlib.sha256).digest()
    assert fields["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert fields["webhook-id"] == "r1-3"
    assert fields["content-type"] == "application/json"
    assert json.loads(body) == MESSAGE


async def test_a_message_that_is_not_taken_is_sent_again_under_the_same_id():
    async with Receiver() as receiver:
        receiver.answers = [500, 302, 204]
        assert await webhook.post_webhook_with_retries(receiver.url, "secret", "r1-3", MESSAGE)
    assert [fields["webhook-id"] for fields, _ in receiver.got] == ["r1-3"] * 3


async def test_a_webhook_that_never_takes_it_is_an_error_in_the_log(caplog: pytest.LogCaptureFixture):
    async with Receiver() as receiver:
        receiver.answers = [500]
        assert not await webhook.post_webhook_with_retries(receiver.url, "secret", "r1-3", MESSAGE)
    assert len(receiver.got) == 3
    assert "status 500 after 3 attempts" in caplog.text
    assert not await webhook.post_webhook_with_retries(receiver.url, "secret", "r1-3", MESSAGE)
    assert "secret" not in caplog.text


@pytest.mark.parametrize("host", ["a..b", "a" * 70 + ".example"])
async def test_a_host_name_that_cannot_exist_is_an_error_in_the_log(
    host: str, caplog: pytest.LogCaptureFixture
):
    assert not await webhook.post_webhook_with_retries(f"https://{host}/hook", "secret", "r1-3", MESSAGE)
    assert re.search(
        r"Unicode(Encode)?Error after 3 attempts", caplog.text
    )  # the longer name since Python 3.13
