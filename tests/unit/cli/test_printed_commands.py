"""Commands that other commands print: for the environment that they act on, and quoted for a shell."""

import shlex
from pathlib import Path

import pytest

from gateway.cli.support.global_options import GlobalOptions
from tests.unit.cli.shell import Shell
from tests.unit.cli.sign_off_stage import Stage


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("chips traffic wine 1=90 2=10", "chips --env prod traffic wine 1=90 2=10"),
        ("`chips check` shows it; chips doctor too", "`chips --env prod check` shows it; chips --env prod doctor too"),
        ("chips --env qa check", "chips --env qa check"),
        ("chips ps, and chips know nothing; /chips check", "chips ps, and chips know nothing; /chips check"),
    ],
)  # fmt: skip
def test_they_name_the_environment_that_was_named(text: str, printed: str):
    options = GlobalOptions()
    options.commands = {"traffic", "check", "doctor"}
    assert options.add_environment_to_commands(text) == text
    options.env = "prod"
    assert options.add_environment_to_commands(text) == printed


def test_a_hint_can_be_typed_as_it_is(stage: Stage):
    assert "chips --env prod history wine shows its changes" in stage.refused("audit", "wine", "--verify").err
    assert "chips history wine shows its changes" in stage.shell("audit", "wine", "--verify").err


def test_what_people_wrote_is_shown_as_they_wrote_it(stage: Stage):
    stage.prod("networks", "add", "192.0.2.0/24", "--reason", "as chips doctor says")
    assert "as chips doctor says" in stage.prod("history").out


def test_paths_with_blanks_are_quoted(shell: Shell, tmp_path: Path):
    place = f"mlflow:{tmp_path}/my models/churn"
    hint = shell("import", place).err.split("hint:")[1]
    assert shlex.split(hint) == ["chips", "import-model", place]


def test_the_environment_may_stand_behind_the_command(stage: Stage):
    for words in (("history", "--env", "prod"), ("history", "--env=prod"), ("--env", "prod", "history")):
        assert "environment prod" in stage.shell.ok(*words).err
    ended = stage.shell("history", "--env")
    assert (ended.code, "--env" in ended.err) == (64, True), ended
    assert "environment" not in stage.shell("history", "--", "--env", "prod").err
