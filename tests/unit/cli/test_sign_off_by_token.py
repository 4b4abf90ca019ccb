"""`chips approve --token-command`: the command gets an audience, asks an issuer, and prints a token, as gcloud does."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.cli.support import console
from gateway.registry.base import APPROVALS, SIGN_OFF
from tests.flow.issuer import KeyServer, signer
from tests.unit.cli.sign_off_stage import Stage
from tests.unit.cli.test_sign_off_adversary import finding


@contextmanager
def key_server() -> Iterator[KeyServer]:
    """An issuer in a thread of its own, while commands, each with a loop of its own, ask it."""
    with asyncio.Runner() as runner:
        server = KeyServer(signer())
        runner.run(server.__aenter__())
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield server
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            runner.run(server.__aexit__())


def test_an_identity_token_of_an_issuer(stage: Stage, tmp_path: Path):
    """The command gets the audience, asks the issuer, and prints a token, as gcloud does."""
    with key_server() as server:
        _approve_by_token(stage, tmp_path, server.issuer)


def test_an_audit_verifies_a_token_whose_key_was_replaced(stage: Stage, tmp_path: Path):
    """The key is kept with the approval, in the hash chain. The gate wants it signed again; the past stays what it was."""
    with key_server() as server:
        _approve_by_token(stage, tmp_path, server.issuer)
        (identity,) = [one["id"] for one in stage.prod("approvals", "--json").json()]
        server.keys = [signer("k2").jwk()]
        kept = stage.read("prod", APPROVALS, identity).body["keys"]
        (known,) = kept
        assert known["jwk"].keys() == {"kty", "n", "e"}, "a public key and no more"
        shown = stage.prod("audit", "wine", "--at", "2999-01-01T00:00Z").out
        assert f"gil@example.com (by the key {known['thumbprint']}, no longer published)" in shown
        assert stage.prod("audit", "--verify").code == 0
        assert finding(stage)["outcome"] == "warning"
        assert known["thumbprint"] in finding(stage)["text"]

        body = stage.read("prod", APPROVALS, identity).body
        stage.put("prod", APPROVALS, identity, {**body, "keys": []})
        assert "approved by bea@example.com (request" in stage.prod("audit", "--at", "2999-01-01T00:00Z").out
        assert finding(stage)["outcome"] == "wrong"

        stage.put("prod", APPROVALS, identity, body)
        stage.prod("deregister", "wine", "--yes")
        ended = stage.register(ok=False)
        assert "does not publish its key any more: sign it again" in ended.err


def _approve_by_token(stage: Stage, folder: Path, issuer: str) -> None:
    token = f'{{ issuer = "{issuer}", email = "gil@example.com" }}'
    more = f'[[people]]\nname = "gil@example.com"\nroles = ["approver"]\ntokens = [{token}]\n'
    stage.put("prod", SIGN_OFF, "policy", None)
    (folder / "sign-off.toml").write_text(stage.people.policy(more=more))
    stage.prod("sign-off", "set", "sign-off.toml")
    identity = stage.request()

    def command(email: str, audience: str = "{audience}") -> str:
        return f"{sys.executable} {folder / 'mint.py'} {issuer} {email} {audience}"

    key = signer().key
    (folder / "issuer.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "mint.py").write_text(
        "import sys, time, jwt\nfrom pathlib import Path\n"
        "issuer, email, audience = sys.argv[1:]\nnow = int(time.time())\n"
        "claims = {'iss': issuer, 'aud': audience, 'sub': '1', 'email': email, 'email_verified': True, 'iat': now, 'exp': now + 600}\n"
        f"key = Path({str(folder / 'issuer.pem')!r}).read_bytes()\n"
        "print(jwt.encode(claims, key, algorithm='RS256', headers={'kid': 'k1'}))\n"
    )
    words = ("approve", identity, "--as", "gil@example.com", "--token-command")
    assert "could not be signed" in stage.refused(*words, command("eve@example.com")).err
    assert "could not be signed" in stage.refused(*words, command("gil@example.com", "https://gateway")).err
    assert stage.refused(*words, "/no/such/program").code == console.EX_DATAERR
    assert (
        "say whose token"
        in stage.refused("approve", identity, "--token-command", command("gil@example.com")).err
    )
    stage.prod(*words, command("gil@example.com"))
    stage.approve(identity, "bea")
    assert stage.state(identity)["approved_by"] == ["gil@example.com", "bea@example.com"]
    stage.register()
