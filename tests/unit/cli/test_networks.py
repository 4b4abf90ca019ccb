"""`chips networks`: what is added is admitted, and mistakes change nothing."""

import pytest

from tests.unit.cli.shell import Shell


def listed(shell: Shell) -> dict[str, str]:
    return {entry["network"]: entry["note"] for entry in shell.ok("networks", "list", "--json").json()}


def test_add_list_remove(shell: Shell):
    assert "networks add" in shell.ok("networks", "list").out
    added = shell.ok(
        "networks", "add", "192.0.2.0/24", "2001:db8::/32", "--note", "office [/b]", "--json"
    ).json()
    assert added == {"added": ["192.0.2.0/24", "2001:db8::/32"], "unchanged": []}
    assert "unchanged" in shell.ok("networks", "add", "192.0.2.0/24", "198.51.100.7").out
    assert listed(shell) == {
        "192.0.2.0/24": "office [/b]",
        "198.51.100.7/32": "",
        "2001:db8::/32": "office [/b]",
    }
    assert "office [/b]" in shell.ok("networks", "list").out
    shell.ok("networks", "remove", "192.0.2.0/24", "198.51.100.7")
    assert list(listed(shell)) == ["2001:db8::/32"]
    shell.ok("networks", "add", "192.0.2.0/24")  # what was removed may come back


@pytest.mark.parametrize("network", ["192.0.2.7/24", "example.com", "", "0.0.0.0/33"])
def test_of_several_one_wrong_adds_none(shell: Shell, network: str):
    assert shell("networks", "add", "198.51.100.0/24", network).code == 65
    assert listed(shell) == {}


def test_of_several_one_unknown_removes_none(shell: Shell):
    shell.ok("networks", "add", "198.51.100.0/24")
    ended = shell("networks", "remove", "198.51.100.0/24", "192.0.2.0/24")
    assert ended.code == 65
    assert "192.0.2.0/24" in ended.err
    assert list(listed(shell)) == ["198.51.100.0/24"]
