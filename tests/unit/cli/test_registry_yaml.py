"""`chips export` and `import`: the registry as a file, all of it or nothing."""

from pathlib import Path

import pytest
import yaml

from gateway.cli.support.registry_yaml import write_declaration
from gateway.core.model_updates import to_document
from gateway.cost.registry_price_tables import read_default_prices
from gateway.registry.base import MODELS, Document
from tests.unit.cli.shell import Shell

FILE = """\
chips: 1
models:
  wine:
    owner: ana
    backends:
    - version: "1"
      url: http://127.0.0.1:9/wine
    traffic: {"1": 100}
    of_a_newer_release: [1, {a: null}]
networks:
  192.0.2.0/24:
    note: office
"""


@pytest.fixture
def file(shell: Shell, tmp_path: Path) -> Path:
    path = tmp_path / "registry.yaml"
    path.write_text(FILE)
    return path


def test_what_was_exported_changes_nothing_when_imported(shell: Shell, tmp_path: Path):
    shell.register("wine", "1", "--owner", "ana", "--description", "Ünï: 'yes'\nno")
    shell.register("wine", "1.10")
    shell.register("beer", "007")
    shell.ok("networks", "add", "192.0.2.0/24", "2001:db8::/32", "--note", "office")
    ended = shell.ok("export", "out.yaml")
    assert "2 models, 2 networks to out.yaml" in ended.out
    content = yaml.safe_load((tmp_path / "out.yaml").read_text())
    assert content["models"]["wine"]["traffic"] == {"1": 100, "1.10": 0}
    assert content["networks"] == {"192.0.2.0/24": {"note": "office"}, "2001:db8::/32": {"note": "office"}}
    assert "unchanged" in shell.ok("import", "out.yaml", "--prune").out
    assert shell.ok("export").out == (tmp_path / "out.yaml").read_text()
    # Into an empty registry, it makes the same one.
    other = f"sqlite://{tmp_path}/other.db"
    shell.ok("import", "out.yaml", "--yes", "--registry", other)
    assert shell.ok("export", "--registry", other).out == (tmp_path / "out.yaml").read_text()


def test_budgets_prices_and_plans_are_restored_as_they_were(shell: Shell, tmp_path: Path):
    shell.register("wine")
    shell.ok("budget", "set", "2.50", "--model", "wine", "--refuse", "402", "--note", "vineyard: yes")
    shell.ok("budget", "set", "7", "--key", "google:ana@example.com", "--period", "day")
    shell.ok("plan", "wine", "--rps", "5", "--latency", "40ms", "--save")
    table = to_document(read_default_prices()) | {"date": "2026-11-24"}
    path = tmp_path / "prices.yaml"
    path.write_text(yaml.safe_dump({"chips": 1, "prices": {"2026-11-24": table}}))
    shell.ok("import", str(path), "--yes")
    budgets, prices = (shell.ok(*words, "--json").json() for words in (("budget", "list"), ("prices",)))
    ended = shell.ok("export", "out.yaml")
    assert "1 models, 0 networks, 2 budgets, 1 prices, 1 plans to out.yaml" in ended.out
    assert "unchanged" in shell.ok("import", "out.yaml", "--prune").out
    other = f"sqlite://{tmp_path}/other.db"
    shell.ok("import", "out.yaml", "--yes", "--registry", other)
    assert shell.ok("budget", "list", "--json", "--registry", other).json() == budgets
    assert shell.ok("prices", "--json", "--registry", other).json() == prices
    assert shell.ok("export", "--registry", other).out == (tmp_path / "out.yaml").read_text()
    shell.ok("budget", "set", "9", "--model", "wine")
    shell.ok("budget", "remove", "--key", "google:ana@example.com")
    shell.ok("import", "out.yaml", "--yes", "--prune")
    assert shell.ok("budget", "list", "--json").json() == budgets


@pytest.mark.parametrize("version", ["1e5", "089", "12e345678901", "0o17", "1.5", "-"])
def test_a_version_that_looks_like_a_number_is_quoted(version: str):
    """Readers of YAML 1.2 take more words for numbers than PyYAML; a random hexadecimal id is one of them now and then."""
    body = {"owner": version, "traffic": {version: 100}}
    text = write_declaration({MODELS: (Document(kind=MODELS, name="wine", body=body, revision=1),)})
    assert f"owner: '{version}'" in text
    assert f"'{version}': 100" in text


def test_the_plan_comes_first_and_a_dry_run_ends_with_it(shell: Shell, file: Path):
    ended = shell.ok("import", str(file), "--dry-run")
    assert "add       models/wine" in ended.out
    assert "add       networks/192.0.2.0_24" in ended.out
    assert "owner: ana" in ended.out
    assert "nothing was written" in ended.out
    assert shell.ok("models", "--json").json() == []


def test_all_at_once(shell: Shell, file: Path):
    shell.register("beer")
    facts = shell.ok("import", str(file), "--yes", "--json", "--by", "ci", "--reason", "commit 7").json()
    assert facts["written"]
    assert {step["action"] for step in facts["plan"]} == {"create"}
    history = shell.ok("history", "--json").json()
    assert {change["generation"] for change in history[:2]} == {facts["generation"]}
    assert {change["author"] for change in history[:2]} == {"ci"}
    assert shell.model("wine")["of_a_newer_release"] == [1, {"a": None}]
    assert [model["name"] for model in shell.ok("models", "--json").json()] == ["beer", "wine"]


def test_changes_are_shown_as_differences_and_prune_removes(shell: Shell, file: Path):
    shell.ok("import", str(file), "--yes")
    shell.register("beer")
    file.write_text(FILE.replace("owner: ana", "owner: bea").replace("note: office", "note: branch"))
    ended = shell.ok("import", str(file), "--yes", "--prune")
    assert "change    models/wine" in ended.out
    assert "owner: ana → bea" in ended.out
    assert "note: office → branch" in ended.out
    assert "remove    models/beer" in ended.out
    assert [model["name"] for model in shell.ok("models", "--json").json()] == ["wine"]
    # A section that the file lacks is left alone, also with --prune.
    file.write_text("chips: 1\nmodels: {}\n")
    shell.ok("import", str(file), "--yes", "--prune")
    assert shell.ok("models", "--json").json() == []
    assert len(shell.ok("networks", "list", "--json").json()) == 1


def test_it_must_be_confirmed(shell: Shell, file: Path):
    ended = shell("import", str(file))
    assert ended.code == 64
    assert "--yes" in ended.err
    assert shell.ok("models", "--json").json() == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "chips: 1"),
        ("[]", "chips: 1"),
        ("chips: 2\nmodels: {}", "chips: 1"),
        ("chips: 1\nmodel: {}", "model: there is no such section"),
        ("chips: 1\nkeys: {}", "keys: there is no such section"),
        ("chips: 1\nmodels: [wine]", "models: must hold names"),
        ("chips: 1\nmodels: {wine: 7}", "models/wine: must be a name"),
        ("chips: 1\nmodels: {1: {}}", "models/1: must be a name in quotes"),
        ("chips: 1\nmodels: {WINE: {}}", "cannot be a model's name"),
        ("chips: 1\nmodels: {wine: {name: beer}}", 'it says that it is "beer"'),
        ("chips: 1\nmodels: {wine: {backends: [{version: 1.10, url: 'http://a'}]}}", "Expected `str`"),
        ("chips: 1\nmodels: {wine: {backends: [{version: 2027-01-01, url: 'file:///etc'}]}}", "http://"),
        ("chips: 1\nmodels:\n  wine: {}\n  wine: {}", "'wine' stands twice"),
        ("chips: 1\nmodels: {a: &a {}, b: *a}", "aliases are not taken"),
        ("chips: 1\nnetworks: {192.0.2.300/24: {}}", "networks/192.0.2.300/24"),
        ("chips: 1\nbudgets: {wine: {scope: model, name: wine, amount_micros: 1}}", "budgets/wine: it says"),
        (
            "chips: 1\nbudgets: {'model:wine': {scope: model, name: wine, amount_micros: -1}}",
            "more than nothing",
        ),
        (
            "chips: 1\nbudgets: {'model:wine': {scope: model, name: wine, amount_micros: 1.5}}",
            "Expected `int`",
        ),
        ("chips: 1\nprices: {2026-11-30: {date: 2026-11-30}}", "prices/2026-11-30: "),
        ("chips: 1\nplans: {wine: {model: beer}}", "plans/wine: "),
        (
            (
                "chips: 1\nplans: {wine: {model: wine, rps: .inf, latency_s: 1.0, response_bytes: 1.0, "
                "busy_share: 1.0, concurrency: 1, cpu: 1.0, memory_gib: 1.0, min_instances: 0}}"
            ),
            "plans/wine: ",
        ),
        ("chips: 1\nnetworks: {192.0.2.0/24: {note: 7}}", "a network has a note"),
        ("chips: 1\nmodels: !!python/object/apply:os.system [true]", "not valid YAML"),
        ("chips: 1\nmodels: {", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("chips: 1\n\x00", "not valid YAML"),
    ],
)
def test_bad_files(shell: Shell, file: Path, text: str, says: str):
    file.write_text(text)
    ended = shell("import", str(file), "--yes")
    assert ended.code == 65, ended
    assert says in ended.err
    assert shell.ok("history", "--json").json() == []


def test_everything_that_is_wrong_is_told_at_once_and_nothing_is_written(shell: Shell, file: Path):
    file.write_text(FILE + '  "::g": {}\n'.replace("    ", "  ") + "future: {}\n")
    ended = shell("import", str(file), "--yes")
    assert ended.code == 65
    assert "networks/::g" in ended.err
    assert "future: there is no such section" in ended.err
    assert shell.ok("models", "--json").json() == []


def test_files_that_cannot_be_read_or_written(shell: Shell, tmp_path: Path):
    assert "cannot be read" in shell("import", "none.yaml").err
    (tmp_path / "latin.yaml").write_bytes(b"chips: 1 # \xff")
    assert "UTF-8" in shell("import", "latin.yaml").err
    assert "cannot be written" in shell("export", "no/folder/out.yaml").err
