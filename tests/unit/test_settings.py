"""Settings: every source in its place, every mistake named at once, no secret shown."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings import (
    EffectiveSetting,
    SettingsError,
    environment_variable_name,
    load_effective_settings,
    load_settings,
    mask_url,
    setting_types,
    user_data_registry_url,
)

HOME = {"HOME": "/home/ana"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(**arguments: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(**{"environ": HOME} | arguments)
    return caught.value.problems


# -- sources


def test_without_anything_the_defaults_hold():
    settings = load_settings(environ=HOME)
    assert settings.server.port == 8080
    assert settings.edge.networks == (), "nobody outside this machine is admitted until somebody says so"
    assert settings.registry == "sqlite:///home/ana/.local/share/chips/registry.db"


def test_the_default_registry_follows_the_users_data_folder():
    assert user_data_registry_url({**HOME, "XDG_DATA_HOME": "/data"}) == "sqlite:///data/chips/registry.db"


def test_each_source_wins_over_the_one_before(folder: Path):
    """Defaults < chips.toml < PORT < CHIPS_… < flags."""
    seen = []
    environ = dict(HOME)

    def look(flags: dict[str, str] | None = None) -> None:
        (value,) = [
            v for v in load_effective_settings(environ=environ, flags=flags) if v.name == "server.port"
        ]
        seen.append((value.value, value.source))

    look()
    (folder / "chips.toml").write_text("[server]\nport = 1\n")
    look()
    environ["PORT"] = "2"
    look()
    environ["CHIPS_SERVER__PORT"] = "3"
    look()
    look({"server.port": "4"})
    assert seen == [
        (8080, "default"),
        (1, "chips.toml"),
        (2, "$PORT"),
        (3, "$CHIPS_SERVER__PORT"),
        (4, "--server.port"),
    ]


def test_the_settings_file_can_lie_elsewhere(folder: Path):
    (folder / "chips.toml").write_text("[server]\nport = 1\n")
    (folder / "named.toml").write_text("[server]\nport = 2\n")
    (folder / "given.toml").write_text("[server]\nport = 3\n")
    environ = {**HOME, "CHIPS_CONFIG": str(folder / "named.toml")}
    assert load_settings(environ=HOME).server.port == 1
    assert load_settings(environ=environ).server.port == 2
    assert load_settings(environ=environ, config=folder / "given.toml").server.port == 3


def test_a_file_that_was_named_must_be_there(folder: Path):
    (only,) = problems(config=folder / "missing.toml")
    assert "missing.toml cannot be read: No such file" in only


@pytest.mark.parametrize("content", [b"[server\n", b"port = \xff\n", b"a = 1\na = 2\n"])
def test_a_file_that_is_no_toml_is_named(folder: Path, content: bytes):
    (folder / "chips.toml").write_bytes(content)
    (only,) = problems()
    assert only.startswith(
        ("chips.toml is not valid TOML: ", "chips.toml is not UTF-8: line 1 holds the byte 0xff")
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_file_as_powershell_writes_it_says_what_to_do(folder: Path, encoding: str):
    (folder / "chips.toml").write_bytes('registry = "memory://"\n'.encode(encoding))
    (only,) = problems()
    assert only.startswith("chips.toml is UTF-")
    assert "save it as UTF-8 without a byte order mark" in only


@pytest.mark.parametrize("name", setting_types())
def test_every_setting_can_be_given_in_the_environment_as_its_own_default(name: str):
    def look(environ: dict[str, str]) -> EffectiveSetting:
        (value,) = [value for value in load_effective_settings(environ=environ) if value.name == name]
        return value

    default = look(HOME).value
    text = ",".join(default) if isinstance(default, tuple) else str(default)
    given = look(
        {**HOME, environment_variable_name(name): text.lower() if isinstance(default, bool) else text}
    )
    assert given == (name, default, f"${environment_variable_name(name)}")


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("192.0.2.0/24", ("192.0.2.0/24",)),
        (" 192.0.2.0/24 , ::1/128,", ("192.0.2.0/24", "::1/128")),
        ("", ()),
    ],
)
def test_a_list_in_the_environment_is_separated_by_commas(text: str, networks: tuple[str, ...]):
    assert load_settings(environ={**HOME, "CHIPS_EDGE__NETWORKS": text}).edge.networks == networks


def test_a_list_in_the_file_is_an_array(folder: Path):
    (folder / "chips.toml").write_text('[edge]\nnetworks = ["192.0.2.0/24", "::1/128"]\n')
    assert load_settings(environ=HOME).edge.networks == ("192.0.2.0/24", "::1/128")


@pytest.mark.parametrize("name", ["CHIPS_MODEL", "CHIPS_VERSION", "CHIPS_ARTIFACT", "CHIPS_DEBUG", "CHIPSET"])
def test_names_of_commands_and_backends_are_none_of_the_gateways_business(name: str):
    load_settings(environ={**HOME, name: "x"})


# -- mistakes


def test_five_mistakes_in_four_places_are_all_reported_with_their_place(folder: Path):
    (folder / "chips.toml").write_text('[server]\nport = "80"\n\n[serve]\nhost = "x"\n')
    found = problems(
        environ={
            **HOME,
            "CHIPS_LIMITS__BODY_BYTES": "many",
            "CHIPS_EDGE__NETWORKS": "192.0.2.7/24",
            "CHIPS_REGISTRY": "sqlight:///x.db",
        },
        flags={"server.prt": "80"},
    )
    assert len(found) == 6, found
    text = "\n".join(found)
    for said in (
        "server.port: '80' will not do",
        "(from chips.toml)",
        "serve: there is no such setting",
        "did you mean server",
        "limits.body_bytes: 'many' will not do",
        "(from $CHIPS_LIMITS__BODY_BYTES)",
        "did you mean 192.0.2.0/24?",
        "did you mean sqlite?",
        "server.prt: there is no such setting (from --server.prt); did you mean server.port?",
    ):
        assert said in text, said


def test_the_error_lists_all_of_them():
    with pytest.raises(SettingsError, match=r"2 problems in the settings:\n  - .*\n  - ") as caught:
        load_settings(environ={**HOME, "CHIPS_SERVER__PORT": "x", "CHIPS_LOG__LEVEL": "loud"})
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("server.port", text) for text in ("-1", "65536", "80.5", "eighty", "0x50", "", " ", "80 80")),
        *(("server.stop_grace_s", text) for text in ("0", "-1", "601", "nan", "inf", "ten")),
        *(("limits.queue_wait_s", text) for text in ("nan", "inf", "-inf", "1e999", "0")),
        *(("server.keep_alive_s", text) for text in ("nan", "inf")),
        *(("log.format", text) for text in ("JSON", "", "xml")),
        *(("edge.networks", text) for text in ("everybody", "192.0.2.0/33", "192.0.2.0/24;::1", "*")),
        *(
            ("registry", text)
            for text in ("", "nothing", "sqlite:///", "sqlite://", "postgres://x", "http://[")
        ),
    ],
)
def test_a_value_that_will_not_do_is_refused_before_anything_listens(name: str, text: str):
    (only,) = problems(flags={name: text})
    assert only.startswith(f"{name}: ")
    assert f"(from --{name})" in only


@given(st.sampled_from(sorted(setting_types())), st.text(max_size=20))
def test_whatever_is_given_is_taken_or_refused_by_name(name: str, text: str):
    try:
        load_settings(flags={name: text}, environ=HOME)
        found = []
    except SettingsError as error:
        found = error.problems
    assert all(problem.startswith(name) for problem in found)


def test_a_group_that_is_no_table_is_named(folder: Path):
    (folder / "chips.toml").write_text("server = 5\n")
    (only,) = problems()
    assert "server: there is no such setting (from chips.toml)" in only


def test_a_long_value_is_not_repeated_whole():
    (only,) = problems(flags={"server.port": "x" * 10_000})
    assert len(only) < 300


# -- secrets


def test_a_password_in_a_url_is_masked_where_settings_are_shown():
    environ = {**HOME, "CHIPS_ARTIFACTS": "https://ana:hunter2@store.example/models"}
    shown = {value.name: value.value for value in load_effective_settings(environ=environ)}
    assert shown["artifacts"] == "https://ana:***@store.example/models"
    assert load_settings(environ=environ).artifacts == "https://ana:hunter2@store.example/models"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("sqlite:///a/b.db", "sqlite:///a/b.db"),
        ("https://host/x@y", "https://host/x@y"),
        ("https://ana@host/x", "https://***@host/x"),  # it may be a token
        ("https://ana:p%40ss@host:8/x?q#f", "https://ana:***@host:8/x?q#f"),
        ("https://ana:p@ss@host", "https://ana:***@host"),
        ("https://:pass@host", "https://:***@host"),
        ("https://ana:hunter2@[host", "https://***@[host"),
        ("redis://host/0?password=hunter2", "redis://host/0?password=***"),
        ("redis://host?db=1&Password=a%26b&x=y", "redis://host?db=1&Password=***&x=y"),
        ("redis://host?p%61ss=hunter2;api_key=k", "redis://host?p%61ss=***;api_key=***"),
        ("https://u:p@host/x?sig=a=b#access_token=t", "https://u:***@host/x?sig=***#access_token=***"),
        ("firestore://project/db?prefix=team", "firestore://project/db?prefix=team"),
        ("https://[bad?token=t", "https://***"),
        ("no url, but with :// and @", "no url, but with :// and @"),
    ],
)
def test_what_is_masked_and_what_is_not(url: str, masked: str):
    assert mask_url(url) == masked


@given(st.text(alphabet="ab:/@[]?#.%", max_size=30))
def test_masking_never_fails(text: str):
    assert isinstance(mask_url(text), str)


@pytest.mark.parametrize(
    ("environ", "host"),
    [
        ({}, "127.0.0.1"),
        ({"PORT": "8080"}, "0.0.0.0"),  # noqa: S104
        ({"PORT": "8080", "CHIPS_SERVER__HOST": "192.0.2.7"}, "192.0.2.7"),
    ],
)
def test_it_listens_on_this_machine_alone_unless_it_is_in_a_container(environ, host):
    assert load_settings(environ=environ).server.host == host
