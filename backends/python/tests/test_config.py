import subprocess
import sys
from pathlib import Path

import pytest
from chips_backend import config
from chips_backend.config import ConfigError, available_cpus, read_config

GOOD = {"CHIPS_ARTIFACT": "gs://bucket/wine/3/"}


def test_an_artifact_is_all_it_takes():
    read = read_config(GOOD)
    assert (read.artifact, read.port, read.model, read.version) == (GOOD["CHIPS_ARTIFACT"], 8080, None, None)
    assert read.max_body_bytes == 31 * 1024 * 1024
    assert read.concurrency == available_cpus()
    assert read.cache_dir.name == "chips"
    assert read.batch_target_ms is None


def test_our_names_go_before_those_of_vertex():
    vertex = {
        "AIP_STORAGE_URI": "gs://vertex/copy",
        "AIP_HTTP_PORT": "8081",
        "AIP_PREDICT_ROUTE": "/v1/a:predict",
    }
    read = read_config(vertex)
    assert (read.artifact, read.port, read.predict_route) == ("gs://vertex/copy", 8081, "/v1/a:predict")
    read = read_config({**vertex, **GOOD, "PORT": "9000"})
    assert (read.artifact, read.port) == (GOOD["CHIPS_ARTIFACT"], 9000)


def test_empty_is_as_if_not_set():
    read = read_config({**GOOD, "PORT": "", "CHIPS_MODEL": "", "AIP_HEALTH_ROUTE": ""})
    assert (read.port, read.model, read.health_route) == (8080, None, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "8080.0"),
        ("PORT", "٨٠٨٠"),
        ("CHIPS_MODEL", "Wine"),
        ("CHIPS_MODEL", "../wine"),
        ("CHIPS_MODEL", "a" * 64),
        ("CHIPS_VERSION", ".."),
        ("CHIPS_VERSION", "1/2"),
        ("CHIPS_CONCURRENCY", "0"),
        ("CHIPS_CONCURRENCY", "many"),
        ("CHIPS_MAX_BODY_BYTES", "31MiB"),
        ("CHIPS_ARTIFACT_DIGEST", "sha256:123"),
        ("CHIPS_BATCH_TARGET_MS", "0.5"),
        ("AIP_PREDICT_ROUTE", "predict"),
        ("AIP_HEALTH_ROUTE", "/health?x"),
        ("CHIPS_PORT", "1"),
    ],
)
def test_a_wrong_value_is_named(name, value):
    with pytest.raises(ConfigError) as caught:
        read_config({**GOOD, name: value})
    assert caught.value.problems[0].startswith(name)


def test_all_mistakes_are_told_at_once_and_a_slip_is_corrected():
    with pytest.raises(ConfigError) as caught:
        read_config({"CHIPS_MODLE": "wine", "PORT": "x", "CHIPS_CONCURRENCY": "0"})
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    assert "CHIPS_MODLE is not known; did you mean CHIPS_MODEL?" in text
    assert "CHIPS_ARTIFACT is not set" in text


def test_the_gateways_names_in_the_same_shell_are_no_mistake():
    read_config(
        {**GOOD, "CHIPS_REGISTRY": "sqlite:x", "CHIPS_SERVER__PORT": "8080", "CHIPS_ARTIFACTS": "gs://b"}
    )


def test_a_wrong_environment_ends_the_start_with_78_and_one_line(start):
    backend = start({"CHIPS_CONCURENCY": "2"})
    assert backend.end() == 78
    assert backend.errors.decode().count("\n") == 1
    assert "did you mean CHIPS_CONCURRENCY?" in backend.errors.decode()
    assert backend.log == []


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("max 100000", 4), ("200000 100000", 2), ("50000 100000", 1), ("900000 100000", 4), ("", 4)],
)
def test_a_containers_share_of_the_processors_counts(monkeypatch, tmp_path: Path, quota, cpus):
    share = tmp_path / "cpu.max"
    share.write_text(quota)
    monkeypatch.setattr(config, "_CGROUP", share)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert available_cpus() == cpus


def test_numeric_libraries_share_the_processors(monkeypatch):
    from chips_backend import __main__

    monkeypatch.setattr(__main__, "available_cpus", lambda: 8)
    environ: dict[str, str] = {}
    __main__.share_processors(environ, 3)
    assert environ == {"OMP_NUM_THREADS": "2"}
    __main__.share_processors(environ, 1)
    assert environ == {"OMP_NUM_THREADS": "2"}, "what is set stays"


def test_a_wrong_setting_is_told_before_the_heavy_packages_are_imported():
    code = "import sys, chips_backend.__main__; sys.exit(any(name in sys.modules for name in ('numpy', 'aiohttp', 'google')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
