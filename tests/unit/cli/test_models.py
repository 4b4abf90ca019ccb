"""`chips models`, `show`, `enable`, `disable`, `deregister`."""

import asyncio
from typing import Any

import pytest

from gateway.registry.base import MODELS, Change, Put
from gateway.registry.open_by_url import open_registry
from tests.unit.cli.shell import Shell


def write(shell: Shell, name: str, body: dict[str, Any], expected: int = 0) -> None:
    async def work() -> None:
        registry = open_registry(shell.registry)
        await registry.write(Put(kind=MODELS, name=name, body=body, expected=expected), author="test")
        await registry.close()

    asyncio.run(work())


def history(shell: Shell) -> tuple[Change, ...]:
    async def work() -> tuple[Change, ...]:
        registry = open_registry(shell.registry)
        try:
            return await registry.history()
        finally:
            await registry.close()

    return asyncio.run(work())


def test_an_empty_registry_says_what_to_do(shell: Shell):
    assert "chips register NAME URL" in shell.ok("models").out
    assert shell.ok("models", "--json").json() == []


def test_the_list_shows_versions_traffic_and_state(shell: Shell):
    shell.register("wine", "1", "--owner", "ana")
    shell.register("wine", "2", "--traffic", "30")
    shell.register("iris", "1", "--access", "public")
    shell.ok("disable", "iris")
    lines = shell.ok("models").out.splitlines()
    (wine,) = [line for line in lines if line.startswith("wine")]
    (iris,) = [line for line in lines if line.startswith("iris")]
    assert "1 (70 %), 2 (30 %)" in wine
    assert "ana" in wine
    assert "disabled" in iris
    listed = shell.ok("models", "--json").json()
    assert [(model["name"], model["revision"]) for model in listed] == [("iris", 2), ("wine", 2)]
    assert listed[1]["traffic"] == {"1": 70, "2": 30}


@pytest.mark.parametrize(
    "text",
    [
        "[/nobody]",
        "[red]wine[/red]",
        "[link=x]",
        "ends with \\",
        "[1]",
        ":warning:",
    ],
)
def test_what_people_wrote_is_shown_as_they_wrote_it(shell: Shell, text: str):
    shell.register("wine", "1", "--owner", text, "--description", text)
    assert shell.ok("models").out.count(text) == 2
    assert shell.ok("show", "wine").out.count(text) == 2


def test_what_people_wrote_gives_no_orders_to_the_terminal(shell: Shell):
    shell.register("wine", "1", "--owner", "\x1b[2Jana\x9b", "--description", "a\rb\x07")
    for shown in (shell.ok("models").out, shell.ok("show", "wine").out):
        assert r"\x1b[2Jana\x9b" in shown
        assert r"a\x0db\x07" in shown
        assert not set("\x1b\x9b\r\x07") & set(shown)
    assert shell.model()["owner"] == "\x1b[2Jana\x9b", "for a machine it stays as it is"


def test_a_document_that_cannot_be_read_hides_no_other(shell: Shell):
    shell.register("wine")
    write(shell, "broken", {"name": "broken", "traffic": "all of it"})
    out = shell.ok("models").out
    assert "cannot be read" in out
    assert "wine" in out
    assert len(shell.ok("models", "--json").json()) == 2


@pytest.mark.parametrize(
    "verb", [("show",), ("enable",), ("disable",), ("deregister", "--version", "1", "--yes")], ids=" ".join
)
def test_a_document_that_cannot_be_read_ends_with_65(shell: Shell, verb: tuple[str, ...]):
    write(shell, "broken", {"name": "broken", "traffic": "all of it"})
    ended = shell(verb[0], "broken", *verb[1:])
    assert ended.code == 65, ended
    assert "traffic" in ended.err


def test_a_document_that_cannot_be_read_can_be_removed(shell: Shell):
    write(shell, "broken", {"name": "broken", "traffic": "all of it"})
    shell.ok("deregister", "broken", "--yes")
    assert shell.ok("models", "--json").json() == []


def test_show_tells_everything_and_who_changed_it_last(shell: Shell):
    shell.register(
        *(
            "wine",
            "1",
            "--owner",
            "ana",
            "--description",
            "grades wine",
            "--timeout",
            "2.5",
            "--access",
            "public",
        ),
        *("--max-in-flight", "7", "--body-limit", "1000", "--path", "/score", "--concurrency", "3"),
        *("--artifact", "gs://bucket/wine/1", "--reason", "first try", "--by", "bob"),
    )
    out = shell.ok("show", "wine").out
    for told in (
        *("grades wine", "ana", "2.5 s", "7 at once", "1000 bytes", "no key needed", "revision 1"),
        *(
            "100 %",
            "http://127.0.0.1:9/wine-1/score",
            "3 at once",
            "gs://bucket/wine/1",
            "by bob",
            "first try",
        ),
    ):
        assert told in out, told
    shown = shell.model()
    assert shown["policy"] == {
        "access": "public",
        "timeout_s": 2.5,
        "body_limit_bytes": 1000,
        "max_in_flight": 7,
    }
    assert shown["revision"] == 1
    why = "first try; forced: version 1: it was never verified"
    assert (shown["changed"]["by"], shown["changed"]["reason"]) == ("bob", why)


@pytest.mark.parametrize("verb", ["show", "enable", "disable", "deregister"])
def test_a_model_that_is_not_there_ends_with_65(shell: Shell, verb: str):
    ended = shell(verb, "nobody")
    assert ended.code == 65
    assert 'no model "nobody"' in ended.err
    assert "chips models" in ended.err


def test_disable_and_enable_keep_everything_else(shell: Shell):
    shell.register("wine", "1", "--owner", "ana")
    before = shell.model()
    shell.ok("disable", "wine", "--reason", "wrong scaler")
    assert shell.model()["enabled"] is False
    assert shell.model()["changed"]["reason"] == "wrong scaler"
    shell.ok("enable", "wine")
    ignored = {"revision": 0, "changed": None}
    assert shell.model() | ignored == before | ignored


def test_changes_keep_what_a_newer_release_wrote(shell: Shell):
    shell.register()
    document = {key: value for key, value in shell.model().items() if key not in {"revision", "changed"}}
    write(shell, "wine", document | {"labels": {"team": "cellar"}}, expected=1)
    shell.ok("disable", "wine")
    shell.register("wine", "2")
    shell.ok("deregister", "wine", "--version", "2", "--yes")
    assert shell.model()["labels"] == {"team": "cellar"}


# -- deregister


def test_removal_must_be_confirmed(shell: Shell):
    shell.register()
    ended = shell("deregister", "wine")
    assert ended.code == 64
    assert "--yes" in ended.err
    assert shell.model()["revision"] == 1


def test_a_whole_model_goes_and_its_history_stays(shell: Shell):
    shell.register()
    shell.ok("deregister", "wine", "--yes", "--reason", "retired")
    assert shell("show", "wine").code == 65
    last, first = history(shell)
    assert (last.action, last.reason, last.author) == ("delete", "retired", "ana")
    assert last.before == first.after


def test_a_version_without_traffic_goes(shell: Shell):
    shell.register("wine", "1")
    shell.register("wine", "2")
    shell.ok("deregister", "wine", "--version", "2", "--yes")
    shown = shell.model()
    assert [backend["version"] for backend in shown["backends"]] == ["1"]
    assert shown["traffic"] == {"1": 100}


def test_a_version_with_traffic_stays_unless_forced(shell: Shell):
    shell.register("wine", "1")
    shell.register("wine", "2", "--traffic", "20")
    shell.register("wine", "3", "--traffic", "50")
    ended = shell("deregister", "wine", "--version", "3", "--yes")
    assert ended.code == 65
    assert "50 %" in ended.err
    assert "--force" in ended.err
    shell.ok("deregister", "wine", "--version", "3", "--yes", "--force")
    assert shell.model()["traffic"] == {"1": 80, "2": 20}


def test_who_takes_all_traffic_cannot_go_while_another_takes_none(shell: Shell):
    shell.register("wine", "1")
    shell.register("wine", "2")
    ended = shell("deregister", "wine", "--version", "1", "--yes", "--force")
    assert ended.code == 65
    assert "traffic" in ended.err
    assert shell.model()["traffic"] == {"1": 100, "2": 0}


def test_with_the_last_version_the_model_goes(shell: Shell):
    shell.register()
    shell.ok("deregister", "wine", "--version", "1", "--yes")
    assert shell.ok("models", "--json").json() == []


def test_a_version_that_is_not_there_ends_with_65(shell: Shell):
    shell.register()
    ended = shell("deregister", "wine", "--version", "7", "--yes")
    assert ended.code == 65
    assert "it has 1" in ended.err
