"""What every Dockerfile and pipeline keeps. No engine builds them here; these are the rules that can be read off."""

import re
from pathlib import Path

import pytest
import yaml

from gateway.cli import _COMMANDS

DOCKERFILES = sorted([*Path("backends").glob("*/Dockerfile"), *Path("deploy").rglob("Dockerfile")])
PIPELINES = sorted([*Path("deploy/cloudbuild").glob("*.yaml"), *Path(".github/workflows").glob("*.yaml")])


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines() if line.strip())
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def test_there_are_some():
    assert len(DOCKERFILES) >= 2
    assert len(PIPELINES) >= 3


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
class TestDockerfile:
    def test_the_last_stage_runs_as_nobody_special(self, path: Path):
        last = instructions(path)
        start = max(index for index, (name, _) in enumerate(last) if name == "FROM")
        users = [value for name, value in last[start:] if name == "USER"]
        assert users
        assert users[-1].split(":")[0] not in {"root", "0"}

    def test_signals_reach_the_program(self, path: Path):
        started = [value for name, value in instructions(path) if name in {"ENTRYPOINT", "CMD"}]
        assert started
        assert all(value.startswith("[") for value in started), "the shell form would take SIGTERM for itself"

    def test_bases_are_arguments_so_that_a_digest_can_pin_them(self, path: Path):
        arguments = {value.split("=")[0] for name, value in instructions(path) if name == "ARG"}
        stages = set()
        for name, value in instructions(path):
            if name == "FROM":
                base, _, stage = value.partition(" AS ")
                assert base in stages or re.fullmatch(r"\$\{?(\w+)\}?", base), value
                found = re.fullmatch(r"\$\{?(\w+)\}?", base)
                assert found is None or found[1] in arguments
                stages.add(stage.strip())
        assert not any("latest" in value for name, value in instructions(path) if name == "ARG")

    def test_package_lists_do_not_stay(self, path: Path):
        for name, value in instructions(path):
            if name == "RUN" and "apt-get install" in value:
                assert "--no-install-recommends" in value
                assert "rm -rf /var/lib/apt/lists" in value

    def test_no_secret_and_no_script_from_the_network(self, path: Path):
        text = path.read_text()
        assert not re.search(r"(PASSWORD|SECRET|TOKEN|API_KEY)=", text)
        assert not re.search(r"(curl|wget)[^|\n]*\|\s*(ba|z)?sh", text)

    def test_the_context_leaves_out_the_rest(self, path: Path):
        context = Path() if path.parent == Path("deploy/gateway") else path.parent
        ignored = (context / ".dockerignore").read_text().split()
        assert "*" in ignored or {".git", "tests"} <= {entry.strip("/") for entry in ignored}


@pytest.mark.parametrize("path", PIPELINES, ids=str)
def test_a_pipeline_is_yaml_and_calls_commands_of_ours(path: Path):
    assert yaml.safe_load(path.read_text())
    text = path.read_text()
    calls = re.findall(r"(?:-m,? gateway\.cli,?|(?:run:|^) *chips) (.*)", text, re.MULTILINE)
    verbs = [
        next(
            word for word in re.split(r"[ ,]+", call) if re.match("[a-z]", word)
        )  # options and their values are before
        for call in calls
    ]
    assert set(verbs) <= set(_COMMANDS)
    assert verbs or path.name != "model.yaml"


def test_a_workflow_never_pastes_an_input_into_a_script():
    """`${{ inputs.x }}` in `run:` is text of the script: anybody who fills in the form could run anything."""
    for path in Path(".github/workflows").glob("*.yaml"):
        jobs = yaml.safe_load(path.read_text())["jobs"]
        for job in jobs.values():
            assert not any("${{" in step.get("run", "") for step in job["steps"]), path


@pytest.mark.parametrize("path", sorted(Path(".github/workflows").glob("*.yaml")), ids=str)
def test_actions_are_named_by_commit(path: Path):
    """A tag can be moved to other code; a commit cannot."""
    used = re.findall(r"uses:\s*(\S+)", path.read_text())
    assert used
    assert not [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)]


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_an_image_names_the_revision_of_its_source(path: Path):
    if path.parts[:2] == ("backends", "julia"):
        pytest.skip("the Julia image is not built here")
    labels = " ".join(value for name, value in instructions(path) if name == "LABEL")
    assert 'org.opencontainers.image.revision="${REVISION}"' in labels


@pytest.mark.parametrize(
    "path", [Path("deploy/gateway/Dockerfile"), Path("backends/python/Dockerfile")], ids=str
)
def test_pip_takes_only_files_whose_digests_are_locked(path: Path):
    installs = [value for name, value in instructions(path) if name == "RUN" and "pip install" in value]
    assert "--require-hashes -r /src/requirements.lock" in installs[0]
