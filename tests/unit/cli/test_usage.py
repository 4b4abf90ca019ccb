"""What all verbs do alike: exit codes, errors for people and for machines, help."""

import getpass

import pytest

from gateway import __version__
from tests.unit.cli.shell import Shell


@pytest.mark.parametrize(
    "arguments",
    [
        ("bogus",),
        ("models", "--bogus"),
        ("register",),
        ("register", "wine"),
        ("register", "wine", "http://b", "--traffic", "101"),
        ("register", "wine", "http://b", "--traffic", "many"),
        ("register", "wine", "http://b", "--access", "nobody"),
        ("register", "wine", "http://b", "--max-in-flight", "0"),
        ("keys",),
        ("keys", "bogus"),
        ("keys", "create"),
        ("show",),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_64_and_says_how_to_ask_for_help(
    shell: Shell, arguments: tuple[str, ...]
):
    ended = shell(*arguments)
    assert ended.code == 64, ended
    if arguments != ("keys",):  # alone, it shows its help
        assert ended.out == ""
        assert ended.err.startswith("error: ")
        assert "hint: " in ended.err
        assert "CHIPS_DEBUG" not in ended.err


def test_without_a_probe_the_version_must_be_given(shell: Shell):
    ended = shell("register", "wine", "http://b", "--no-probe")
    assert ended.code == 64
    assert "--version" in ended.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("register", "wine", "http://b", "--traffic", "101"), 64),
        (("register", "Wine", "http://b"), 65),
        (("show", "wine"), 65),
        (("models", "--registry", "sqlite:///"), 78),
    ],
    ids=str,
)
def test_for_a_machine_an_error_is_one_json_document_too(shell: Shell, arguments: tuple[str, ...], code: int):
    ended = shell(*arguments, "--json")
    error = ended.json()["error"]
    assert (ended.code, error["exit_code"]) == (code, code)
    assert error["message"]
    assert set(error) == {"message", "hint", "exit_code"}
    assert ended.err == ""


@pytest.mark.parametrize(
    ("name", "url", "says"),
    [
        ("Wine", "http://b", "cannot be a model's name"),
        ("v2", "http://b", "is reserved"),
        ("-", "http://b", "cannot be a model's name"),
        ("w" * 64, "http://b", "cannot be a model's name"),
        ("wine", "b", "must begin with http"),
        ("wine", "ftp://b", "must begin with http"),
        ("wine", "http://", "does not name a host"),
        ("wine", "http://user:secret@b", "must not hold a user name or a password"),
        ("wine", "http://b/?x=1", "no query"),
        ("wine", "http://b:99999", "is not an address"),
        ("wine", "http://b/../x", "not plain"),
    ],
)
def test_a_wrong_name_or_address_ends_with_65(shell: Shell, name: str, url: str, says: str):
    ended = shell("register", name, url)
    assert ended.code == 65
    assert says in ended.err
    assert "secret" not in ended.err
    assert shell.ok("models", "--json").json() == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--version", "a b"), "cannot be a version"),
        (("--version", "1", "--timeout", "0"), "time-out"),
        (("--version", "1", "--timeout", "nan"), "time-out"),
        (("--version", "1", "--path", "predict"), "predict path"),
        (("--version", "1", "--path", "/a/../b"), "predict path"),
        (("--version", "1", "--traffic", "50"), "remaining 50 %"),
    ],
    ids=str,
)
def test_a_wrong_value_ends_with_65_and_writes_nothing(shell: Shell, options: tuple[str, ...], says: str):
    ended = shell("register", "wine", "http://b", "--no-probe", *options)
    assert ended.code == 65, ended
    assert says in ended.err
    assert shell.ok("models", "--json").json() == []


def test_broken_settings_end_with_78_and_list_everything(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CHIPS_SERVER__PORT", "many")
    monkeypatch.setenv("CHIPS_REGISTY", "sqlite:///x.db")
    ended = shell("models")
    assert ended.code == 78
    assert "server.port" in ended.err
    assert "did you mean registry?" in ended.err


def test_a_registry_that_is_not_one_ends_with_69(shell: Shell):
    with open("notes.txt", "w") as notes:  # noqa: PTH123
        notes.write(
            "these are notes, not a registry, and long enough to be read as a header by anybody\n" * 20
        )
    ended = shell("models", "--registry", "sqlite:notes.txt")
    assert ended.code == 69
    assert "not a CHIPS registry" in ended.err


def test_an_error_of_our_own_shows_no_stack_unless_asked(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    def fail() -> str:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(getpass, "getuser", fail)
    arguments = ["register", "wine", "http://b", "--no-probe", "--version", "1"]
    ended = shell(*arguments)
    assert ended.code == 1
    assert "on purpose" in ended.err
    assert "CHIPS_DEBUG" in ended.err
    monkeypatch.setenv("CHIPS_DEBUG", "1")
    from gateway.cli import main

    with pytest.raises(ZeroDivisionError):
        main(arguments)


def test_a_user_without_a_name_can_register(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    """As in a container that runs under a number that /etc/passwd does not know."""
    import pwd

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    shell.register()


def test_version(shell: Shell):
    assert shell.ok("version").out == f"{__version__}\n"


def test_help_lists_every_verb_and_ends_with_0(shell: Shell):
    out = shell.ok("--help").out
    for verb in [
        "serve",
        "check",
        "register",
        "models",
        "show",
        "deregister",
        "enable",
        "disable",
        "keys",
        "publish",
        "verify",
        "version",
    ]:
        assert verb in out


@pytest.mark.parametrize(
    "verb",
    [
        "check",
        "register",
        "models",
        "show",
        "deregister",
        "enable",
        "disable",
        "publish",
        "verify",
        "keys create",
        "keys list",
    ],
)
def test_every_verb_has_an_example(shell: Shell, verb: str):
    assert f"chips {verb}" in " ".join(shell.ok(*verb.split(), "--help").out.split())


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_by_an_option(shell: Shell, option: str):
    assert shell.ok(option).out.strip() == __version__


def test_help_by_a_short_option_and_in_groups(shell: Shell):
    out = shell.ok("-h").out
    for panel in ("Models and traffic", "Build and deploy", "Who may call", "Look at what happens"):
        assert panel in out
    assert "VERSION=PERCENT" in shell.ok("traffic", "-h").out


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_for_each_shell(name: str):
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli"],
        env={"PATH": os.environ["PATH"], "_CHIPS_COMPLETE": f"source_{name}", "HOME": os.environ["HOME"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "chips" in done.stdout, done.stderr
