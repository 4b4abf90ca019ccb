# Long: one command with more than thirty options.
"""`chips register` against backends on real sockets, a registry in a file and a running gateway."""

import asyncio
import hashlib
import json
import shlex
from pathlib import Path

import pytest

from gateway.artifacts.model_card_sections import SECTIONS
from gateway.free_ports import claim_free_port
from gateway.registry.base import Unavailable
from tests.contract.backends import broken
from tests.contract.backends.broken import ByRows
from tests.flow.background_servers import BackgroundServers
from tests.flow.contract import JSON, Contract
from tests.flow.scripted import Message, Peer
from tests.patience import patience
from tests.unit.cli.shell import Shell


def nothing_written(shell: Shell) -> bool:
    return bool(shell.ok("models", "--json").json() == [])


# -- it goes well


def test_what_the_backend_says_is_what_is_registered(shell: Shell, background: BackgroundServers):
    backend = background.backend(Contract("wine", "3"))
    ended = shell.ok("register", "wine", backend.url + "/", "--json")
    told = ended.json()
    assert (told["written"], told["live"], told["version"], told["traffic"]) == (True, False, "3", {"3": 100})
    model = shell.model()
    assert model["backends"] == [
        {
            "version": "3",
            "url": backend.url,
            "platform": "sklearn_joblib",
            "concurrency": 2,
            "inputs": [{"name": "alcohol", "datatype": "FP64", "shape": [-1]}],
            "outputs": [{"name": "prediction", "datatype": "INT64", "shape": [-1]}],
        }
    ]
    assert [(seen.method, seen.target) for seen in backend.seen[:4]] == [
        ("GET", "/v2/health/live"),  # whether it asks who we are
        ("GET", "/v2/health/live"),
        ("GET", "/v2/health/ready"),
        ("GET", "/v2/models/wine"),
    ]


def test_the_same_again_is_unchanged_and_writes_nothing(shell: Shell, background: BackgroundServers):
    backend = background.backend(Contract())
    shell.ok("register", "wine", backend.url)
    ended = shell.ok("register", "wine", backend.url)
    assert "unchanged" in ended.out
    assert shell.model()["revision"] == 1
    again = shell.ok("register", "wine", backend.url, "--json").json()
    assert (again["written"], again["changes"]) == (False, [])


def test_what_was_verified_is_kept_as_evidence_about_this_very_backend(
    shell: Shell, background: BackgroundServers
):
    first, second = background.backend(Contract()), background.backend(Contract("wine", "2"))
    shell.ok("register", "wine", first.url)
    shell.ok("register", "wine", second.url)
    (record,) = shell.ok("evidence", "wine@2", "--json").json()
    assert (record["sort"], record["passed"], record["counts"]) == ("verify", True, True)
    assert record["backend"] == f"{second.url}/predict"
    assert record["facts"]["failed"] == []
    assert f"{record['facts']['passed']} checks passed" in record["summary"]
    checks = record["facts"]["checks"]
    assert checks["predict/answer"] == "passed"
    assert [*checks.values()].count("passed") == record["facts"]["passed"]
    skipped = {name for name, outcome in checks.items() if outcome == "skipped"}
    assert skipped == set(record["facts"]["why"]), "each says why"
    assert "sent" not in json.dumps(record["facts"])
    shell.ok("canary", "wine", "2")


def test_the_model_card_of_the_artifact_is_kept_as_evidence(
    shell: Shell, background: BackgroundServers, tmp_path: Path
):
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "model.joblib").write_bytes(b"\x80weights")
    card = "".join(f"## {name}\n\nWritten.\n\n" for name in SECTIONS)
    (trained / "card.md").write_text(card.replace("Written", "TODO", 1))
    words = ("publish", str(trained), "--model", "wine", "--version", "1", "--no-try", "--store", "store")
    published = shell.ok(*words, "--json").json()
    parameters = {"artifact": published["artifact"], "artifact_digest": published["digest"]}
    backend = background.backend(Contract(parameters={"concurrency": 2, **parameters}))
    shell.ok("register", "wine", backend.url)
    first, second = shell.ok("evidence", "wine@1", "--json").json()
    assert (first["sort"], first["passed"], first["counts"]) == ("card", False, True)
    assert (first["summary"], second["sort"]) == ("card.md: Owner still to be written", "verify")
    assert "card.md: Owner still to be written" in shell.ok("show", "wine").out
    again = shell.ok("register", "wine", backend.url, "--json").json()
    assert not again["written"], "the same is known"
    elsewhere = ("--no-probe", "--force", "--version", "1", "--artifact", str(tmp_path / "elsewhere"))
    shell.ok("register", "wine", backend.url, *elsewhere)
    assert "card      does not count: it is about another artifact" in shell.ok("show", "wine").out


def test_a_version_that_was_registered_without_a_question_is_verified_when_it_is_registered_again(
    shell: Shell, background: BackgroundServers
):
    first, second = background.backend(Contract()), background.backend(Contract("wine", "2"))
    shell.ok("register", "wine", first.url)
    shell.ok("register", "wine", second.url, "--version", "2", "--no-probe", "--force")
    assert "it was never verified" in shell("canary", "wine", "2").err
    shell.ok("register", "wine", second.url)
    shell.ok("canary", "wine", "2")


def test_a_person_sees_what_will_change(shell: Shell, background: BackgroundServers):
    first, second = background.backend(Contract()), background.backend(Contract("wine", "2"))
    assert "new model" in shell.ok("register", "wine", first.url).out
    out = shell.ok("register", "wine", second.url, "--traffic", "10", "--owner", "ana").out
    assert "traffic.1: 100 → 90" in out
    assert "traffic.2: 10" in out
    assert "owner: ana" in out
    assert second.url in out
    assert first.url not in out, "version 1 did not change"


def test_a_dry_run_shows_the_same_and_writes_nothing(shell: Shell, background: BackgroundServers):
    backend = background.backend(Contract())
    dry = shell.ok("register", "wine", backend.url, "--dry-run", "--json").json()
    assert nothing_written(shell)
    wet = shell.ok("register", "wine", backend.url, "--json").json()
    assert dry["changes"] == wet["changes"] != []
    assert dry["written"] is False


def test_options_win_over_what_the_backend_says_and_stay(shell: Shell, background: BackgroundServers):
    backend = background.backend(Contract())
    shell.ok(
        *("register", "wine", backend.url, "--concurrency", "8", "--artifact", "gs://b/wine/1"),
        *("--path", "/score", "--timeout", "5", "--access", "public", "--owner", "ana"),
    )
    shell.ok("register", "wine", backend.url, "--description", "grades wine")
    model = shell.model()
    assert (model["owner"], model["description"]) == ("ana", "grades wine")
    assert model["policy"] == {"access": "public", "timeout_s": 5.0}
    assert model["backends"][0]["artifact"] == "gs://b/wine/1"
    assert model["backends"][0]["predict_path"] == "/score"


def test_the_digest_of_another_artifact_does_not_stay(shell: Shell, background: BackgroundServers):
    backend = background.backend(
        Contract(parameters={"concurrency": 1, "artifact": "gs://b/wine/1", "artifact_digest": "sha256:1"})
    )
    shell.ok("register", "wine", backend.url)
    assert shell.model()["backends"][0]["artifact_digest"] == "sha256:1"
    silent = background.backend(Contract())
    shell.ok("register", "wine", silent.url)
    assert shell.model()["backends"][0]["artifact_digest"] == "sha256:1", "it said nothing else"
    shell.ok("register", "wine", silent.url, "--artifact", "gs://b/wine/1b")
    assert "artifact_digest" not in shell.model()["backends"][0]


def test_reason_and_author_stand_in_the_history(shell: Shell, background: BackgroundServers):
    backend = background.backend(Contract())
    shell.ok("register", "wine", backend.url, "--reason", "canary", "--by", "bob")
    changed = shell.model()["changed"]
    assert (changed["by"], changed["reason"]) == ("bob", "canary")


def test_without_a_probe_nobody_is_asked(shell: Shell, background: BackgroundServers):
    backend = background.backend(Contract())
    shell.ok("register", "wine", backend.url, "--no-probe", "--force", "--version", "9")
    assert backend.seen == []
    assert shell.model()["traffic"] == {"9": 100}


def test_a_backend_under_a_base_path(shell: Shell, background: BackgroundServers):
    contract = Contract()

    async def below(request: Message, peer: Peer) -> None:
        assert request.target.startswith("/api/v9/")
        request.first = request.first.replace("/api/v9/", "/", 1)
        await contract(request, peer)

    backend = background.backend(below)
    shell.ok("register", "wine", backend.url + "/api/v9")
    assert shell.model()["backends"][0]["url"] == backend.url + "/api/v9"


# -- a backend that is starting


def test_a_backend_that_is_loading_is_waited_for(shell: Shell, background: BackgroundServers):
    contract = Contract()
    contract.not_ready = 2
    backend = background.backend(contract)
    ended = shell.ok("register", "wine", backend.url, "--wait", "30", "--json")
    assert "not ready yet" in ended.err
    assert ended.err.count("not ready yet") == 1, "told once"
    assert ended.json()["written"] is True


def test_a_backend_that_does_not_listen_yet_is_waited_for(shell: Shell, background: BackgroundServers):
    port = claim_free_port()
    from gateway.cli.support import backend_probe
    from gateway.cli.support.console import Failure
    from tests.flow.scripted import ScriptedBackend

    backend = ScriptedBackend(Contract())
    refused = asyncio.Event()

    async def later() -> None:
        await refused.wait()
        await backend.start(port)

    starting = asyncio.run_coroutine_threadsafe(later(), background.loop)
    real_get = backend_probe._get

    async def get(*arguments):
        try:
            return await real_get(*arguments)
        except Failure:
            background.loop.call_soon_threadsafe(refused.set)
            raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend_probe, "_get", get)
        shell.ok("register", "wine", f"http://127.0.0.1:{port}", "--wait", "30")
    starting.result(patience(5))
    background.run(backend.stop())


def test_a_front_end_that_says_503_while_the_backend_starts_is_waited_for(
    shell: Shell, background: BackgroundServers
):
    """A load balancer answers for a container that is not there yet."""
    contract = Contract()
    seen = []

    async def script(request: Message, peer: Peer) -> None:
        seen.append(request.target)
        if len(seen) < 3:
            await peer.answer(503, b"<html>no healthy upstream</html>", [("Content-Type", "text/html")])
        else:
            await contract(request, peer)

    backend = background.backend(script)
    shell.ok("register", "wine", backend.url, "--wait", "30")


def test_a_backend_that_never_gets_ready_ends_with_69(shell: Shell, background: BackgroundServers):
    contract = Contract()
    contract.not_ready = 10**9
    backend = background.backend(contract)
    ended = shell("register", "wine", backend.url, "--wait", "0")
    assert ended.code == 69
    assert "not ready yet" in ended.err
    assert "--wait" in ended.err
    assert nothing_written(shell)


# -- a backend that is none


def test_an_address_where_nobody_listens_ends_with_69(shell: Shell):
    ended = shell("register", "wine", f"http://127.0.0.1:{claim_free_port()}", "--wait", "0")
    assert ended.code == 69
    assert "cannot be reached" in ended.err
    assert nothing_written(shell)


@pytest.mark.parametrize(
    "host",
    [
        "nobody.invalid",
        "a..b",
        "-",
    ],
)
def test_a_host_that_does_not_exist_ends_well(shell: Shell, host: str):
    ended = shell("register", "wine", f"http://{host}", "--wait", "0")
    assert ended.code in {65, 69}, ended
    assert nothing_written(shell)


def test_a_backend_that_does_not_answer_in_time_ends_with_69(
    shell: Shell, background: BackgroundServers, monkeypatch: pytest.MonkeyPatch
):
    from gateway.cli.support import backend_probe

    async def silent(request: Message, peer: Peer) -> None:
        await peer.reader.read()

    monkeypatch.setattr(backend_probe, "_TIMEOUT_S", 0.2)
    ended = shell("register", "wine", background.backend(silent).url, "--wait", "0")
    assert ended.code == 69
    assert "no answer within 0.2 seconds" in ended.err


def test_a_backend_of_another_model_ends_with_76(shell: Shell, background: BackgroundServers):
    ended = shell("register", "wine", background.backend(Contract("iris")).url)
    assert ended.code == 76
    assert 'serves no model "wine"' in ended.err
    assert nothing_written(shell)


def test_a_backend_that_calls_itself_something_else_ends_with_76(shell: Shell, background: BackgroundServers):
    contract = Contract()
    contract.routes["/v2/models/wine"] = (200, json.dumps({"name": "iris", "versions": ["1"]}).encode(), JSON)
    backend = background.backend(contract)
    ended = shell("register", "wine", backend.url)
    assert ended.code == 76
    assert 'serves "iris", not "wine"' in ended.err
    assert f"chips register iris {backend.url}" in ended.err
    assert nothing_written(shell)


def test_another_version_than_was_said_ends_with_76(shell: Shell, background: BackgroundServers):
    ended = shell("register", "wine", background.backend(Contract("wine", "3")).url, "--version", "4")
    assert ended.code == 76
    assert "serves version 3, not 4" in ended.err
    assert nothing_written(shell)


@pytest.mark.parametrize("versions", [[], ["1", "2"]])
def test_a_backend_that_does_not_say_which_version_must_be_told(
    shell: Shell, background: BackgroundServers, versions: list[str]
):
    backend = background.backend(Contract(versions=versions))
    ended = shell("register", "wine", backend.url)
    assert ended.code == 64
    assert "--version" in ended.err
    shell.ok("register", "wine", backend.url, "--version", "2", "--force")


def test_a_version_that_cannot_be_one_ends_well(shell: Shell, background: BackgroundServers):
    ended = shell("register", "wine", background.backend(Contract("wine", "not a version")).url)
    assert ended.code in {65, 76}
    assert "cannot be a version" in ended.err
    assert nothing_written(shell)


HTML = [("Content-Type", "text/html")]


@pytest.mark.parametrize(
    ("path", "answer", "says"),
    [
        ("/v2/health/live", (404, b"<html>nothing here</html>", HTML), "404"),
        ("/v2/health/live", (301, b"", [("Location", "/elsewhere")]), "301"),
        ("/v2/health/ready", (404, b"", []), "404"),
        ("/v2/health/ready", (500, b"", []), "500"),
        ("/v2/models/wine", (302, b"", [("Location", "/login")]), "302"),
        ("/v2/models/wine", (401, b"", [("WWW-Authenticate", "Bearer")]), "401"),
        ("/v2/models/wine", (200, b"<html>welcome</html>", HTML), "contract"),
        ("/v2/models/wine", (200, b'{"name": "wine", "versions": ["1"', JSON), "contract"),
        ("/v2/models/wine", (200, b'{"versions": ["1"]}', JSON), "name"),
        ("/v2/models/wine", (200, b'{"name": "wine", "versions": "1"}', JSON), "versions"),
        ("/v2/models/wine", (200, b'["wine"]', JSON), "contract"),
        ("/v2/models/wine", (200, b'{"name": "w\xff"}', JSON), "contract"),
        ("/v2/models/wine", (200, b"", JSON), "contract"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_answers_but_is_no_backend_ends_with_76(
    shell: Shell,
    background: BackgroundServers,
    path: str,
    answer: tuple[int, bytes, list[tuple[str, str]]],
    says: str,
):
    contract = Contract()
    contract.routes[path] = answer
    backend = background.backend(contract)
    ended = shell("register", "wine", backend.url, "--wait", "0")
    assert ended.code == 76, ended
    assert says in ended.err
    assert "hint: " in ended.err
    assert not {"/elsewhere", "/login"} & {seen.target for seen in backend.seen}, "a redirect was followed"
    assert nothing_written(shell)


def test_a_program_that_does_not_speak_http_ends_with_76(shell: Shell, background: BackgroundServers):
    async def script(request: Message, peer: Peer) -> None:
        await peer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        peer.close()

    ended = shell("register", "wine", background.backend(script).url, "--wait", "0")
    assert ended.code == 76, ended
    assert nothing_written(shell)


def test_a_backend_that_hangs_up_ends_with_69(shell: Shell, background: BackgroundServers):
    async def script(request: Message, peer: Peer) -> None:
        peer.abort()

    assert shell("register", "wine", background.backend(script).url, "--wait", "0").code == 69


# -- a backend that breaks the contract


def test_a_backend_that_breaks_the_contract_is_refused(shell: Shell, background: BackgroundServers):
    contract = Contract()
    contract.routes["/predict"] = (200, b'{"predictions": [NaN]}', JSON)
    ended = shell("register", "wine", background.backend(contract).url)
    assert ended.code == 76
    assert "breaks the contract: predict/answer: the body is not JSON" in ended.err
    assert "more)" in ended.err
    assert "chips verify" in ended.err
    assert "--force" in ended.err
    assert nothing_written(shell)


def test_what_was_forced_stands_in_the_history(shell: Shell, background: BackgroundServers):
    contract = Contract()
    contract.metadata["parameters"] = {}
    told = shell.ok(
        "register", "wine", background.backend(contract).url, "--force", "--reason", "canary", "--json"
    ).json()
    assert told["verified"]["failed"] == ["about/concurrency"]
    assert told["verified"]["passed"] > 15
    reason = shell.model()["changed"]["reason"]
    assert reason == "canary; forced although the backend breaks the contract: about/concurrency"
    (record,) = shell.ok("evidence", f"wine@{shell.model()['backends'][0]['version']}", "--json").json()
    assert (record["passed"], record["facts"]["failed"]) == (False, ["about/concurrency"])
    assert record["facts"]["checks"]["about/concurrency"] == "failed"
    assert f"failed about/concurrency: {record['facts']['why']['about/concurrency']}" in " ".join(
        shell.ok("evidence", f"wine@{shell.model()['backends'][0]['version']}").out.split()
    )


def test_force_says_nothing_where_nothing_was_forced(shell: Shell, background: BackgroundServers):
    backend = background.backend(Contract())
    ended = shell.ok("register", "wine", backend.url, "--force")
    assert "kept, as far as" in ended.out
    assert shell.model()["changed"]["reason"] == ""


SILENT = {
    "row-dependent": lambda: ByRows(broken.scaled_by_request),
    "category codes by request": lambda: ByRows(broken.categories_by_request),
    "transposed": lambda: ByRows(broken.transposed_where_square, broken.two_outputs),
    "shape": lambda: ByRows(broken.shape_by_request),
}


@pytest.mark.parametrize("kind", SILENT)
def test_a_backend_that_is_silently_wrong_is_refused_without_samples_too(
    shell: Shell, background: BackgroundServers, kind: str
):
    ended = shell("register", "wine", background.backend(SILENT[kind]()).url)
    assert ended.code == 76
    assert "breaks the contract: rows/" in ended.err
    assert nothing_written(shell)


def test_a_model_that_ranks_is_taken_where_somebody_says_so(shell: Shell, background: BackgroundServers):
    backend = background.backend(ByRows(broken.scaled_by_request))
    shell.ok("register", "wine", backend.url, "--rows", "together")


def artifact_of(tmp_path: Path, *, predictions: list[int]) -> tuple[Path, str]:
    """A published artifact with one sample; and its digest."""
    sample = {"request": {"instances": [{"alcohol": 12}]}, "response": {"predictions": predictions}}
    content = json.dumps({"model": "wine", "version": "1", "samples": [sample]}).encode()
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(content)
    return folder, "sha256:" + hashlib.sha256(content).hexdigest()


def test_what_was_published_is_what_the_backend_must_come_to(
    shell: Shell, background: BackgroundServers, tmp_path: Path
):
    folder, digest = artifact_of(tmp_path, predictions=[13])
    said = {"concurrency": 1, "artifact": str(folder), "artifact_digest": digest}
    ended = shell("register", "wine", background.backend(Contract(parameters=said)).url)
    assert ended.code == 76
    assert "predict/samples: sample 0: [12] instead of [13]" in ended.err


def test_the_samples_of_another_artifact_are_not_compared(
    shell: Shell, background: BackgroundServers, tmp_path: Path
):
    folder, _ = artifact_of(tmp_path, predictions=[13])
    said = {"concurrency": 1, "artifact": str(folder), "artifact_digest": "sha256:" + "0" * 64}
    ended = shell.ok("register", "wine", background.backend(Contract(parameters=said)).url)
    assert "is not what the backend loaded" in ended.err


# -- live


def test_a_running_gateway_serves_it_when_the_command_ends(shell: Shell, background: BackgroundServers):
    backend = background.backend(Contract())
    gateway = background.gateway(shell.registry)
    address = f"http://127.0.0.1:{gateway.port}"
    told = shell.ok("register", "wine", backend.url, "--gateway", address + "/", "--json").json()
    assert (told["live"], told["address"]) == (True, f"{address}/wine")
    snapshot = gateway.mirror.snapshot
    assert snapshot is not None
    assert "wine" in snapshot.entries


def test_the_line_to_try_can_be_pasted(shell: Shell, background: BackgroundServers):
    backend = background.backend(Contract())
    gateway = background.gateway(shell.registry)
    out = shell.ok(
        *("register", "wine", backend.url, "--access", "public"),
        *("--gateway", f"http://127.0.0.1:{gateway.port}"),
    ).out
    (line,) = [line for line in out.splitlines() if "curl " in line]
    words = shlex.split(line[line.index("curl ") :])
    assert words[1] == f"http://127.0.0.1:{gateway.port}/wine"
    assert json.loads(words[-1]) == {"instances": [{"alcohol": 0}]}


def test_a_model_that_is_unchanged_is_still_live(shell: Shell, background: BackgroundServers):
    backend = background.backend(Contract())
    address = f"http://127.0.0.1:{background.gateway(shell.registry).port}"
    shell.ok("register", "wine", backend.url, "--gateway", address)
    told = shell.ok("register", "wine", backend.url, "--gateway", address, "--json").json()
    assert (told["written"], told["live"]) == (False, True)


def test_a_disabled_model_is_not_called_live(shell: Shell, background: BackgroundServers):
    backend = background.backend(Contract())
    address = f"http://127.0.0.1:{background.gateway(shell.registry).port}"
    shell.ok("register", "wine", backend.url, "--gateway", address)
    shell.ok("disable", "wine")
    ended = shell.ok("register", "wine", backend.url, "--gateway", address, "--owner", "ana")
    assert "chips enable wine" in ended.out


def test_without_a_gateway_it_says_so_and_ends_with_0(shell: Shell, background: BackgroundServers):
    backend = background.backend(Contract())
    ended = shell.ok("register", "wine", backend.url, "--gateway", f"http://127.0.0.1:{claim_free_port()}")
    assert "no gateway answers" in ended.out
    assert "chips serve" in ended.out


def test_a_gateway_of_another_registry_is_not_mistaken(
    shell: Shell, background: BackgroundServers, tmp_path: Path
):
    backend = background.backend(Contract())
    gateway = background.gateway(f"sqlite://{tmp_path}/other.db")
    address = f"http://127.0.0.1:{gateway.port}"
    told = shell.ok("register", "wine", backend.url, "--gateway", address, "--json").json()
    assert (told["written"], told["live"]) == (True, False)
    ended = shell.ok("register", "wine", backend.url, "--gateway", address, "--owner", "ana")
    assert "another registry" in ended.out


@pytest.mark.parametrize(
    "body",
    [
        *(b"<html>", b"[]", b'"ready"', b'{"registry": {"id": 7}}', b"\xff"),
        b'{"registry": "x"}',
    ],
)
def test_whatever_answers_where_a_gateway_should_be_the_command_ends_with_0(
    shell: Shell, background: BackgroundServers, body: bytes
):
    backend = background.backend(Contract())

    async def script(request: Message, peer: Peer) -> None:
        await peer.answer(200, body, JSON)

    told = shell.ok(
        "register", "wine", backend.url, "--gateway", background.backend(script).url, "--json"
    ).json()
    assert (told["written"], told["live"]) == (True, False)


# -- somebody else


def test_a_lost_race_ends_with_75_and_writes_nothing(
    shell: Shell, background: BackgroundServers, monkeypatch: pytest.MonkeyPatch
):
    backend = background.backend(Contract())
    from gateway.registry.sqlite import SqliteRegistry

    real_read = SqliteRegistry.read

    async def read(self: SqliteRegistry, kind: str, name: str):
        document = await real_read(self, kind, name)
        monkeypatch.setattr(SqliteRegistry, "read", real_read)
        from gateway.registry.base import Put

        body = {"name": "wine", "owner": "bob"}
        await self.write(Put(kind="models", name="wine", body=body, expected=0), author="bob")
        return document

    monkeypatch.setattr(SqliteRegistry, "read", read)
    ended = shell("register", "wine", backend.url)
    assert ended.code == 75
    assert "somebody changed it meanwhile" in ended.err
    model = shell.model()
    assert (model["owner"], model["revision"]) == ("bob", 1)


def test_a_registry_that_is_away_ends_with_69(
    shell: Shell, background: BackgroundServers, monkeypatch: pytest.MonkeyPatch
):
    backend = background.backend(Contract())
    from gateway.registry.sqlite import SqliteRegistry

    async def read(self: SqliteRegistry, kind: str, name: str):
        raise Unavailable("the registry is away")

    monkeypatch.setattr(SqliteRegistry, "read", read)
    ended = shell("register", "wine", backend.url)
    assert ended.code == 69
    assert "the registry is away" in ended.err
