"""The environment a backend is started with: checked whole, before anything else happens."""

import difflib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from chips_backend.manifest import MODEL_NAME, VERSION

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ROUTE = re.compile(r"/[A-Za-z0-9._~:@/-]*")
_CGROUP = Path(
    "/sys/fs/cgroup/cpu.max"
)  # this container's share of the processors: microseconds per period, or "max"

_OURS = (
    "CHIPS_MODEL",
    "CHIPS_VERSION",
    "CHIPS_ARTIFACT",
    "CHIPS_ARTIFACT_DIGEST",
    "CHIPS_CACHE_DIR",
    "CHIPS_CONCURRENCY",
    "CHIPS_MAX_BODY_BYTES",
    "CHIPS_BATCH_TARGET_MS",
    "CHIPS_PREDICT",
)
# The gateway's own names, which stand in the same shell on a laptop. Its settings with groups have two underscores.
_THE_GATEWAYS = frozenset(
    f"CHIPS_{name}"
    for name in ("REGISTRY", "ARTIFACTS", "CONFIG", "DEBUG", "GATEWAY", "KEY", "TESTS_REQUIRE")
)


class ConfigError(Exception):
    """The environment is wrong; `problems` lists everything."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a backend, from its environment (backends/CONTRACT.md lists them)."""

    artifact: str
    model: str | None = None  # where they are not given, the manifest says what is served
    version: str | None = None
    artifact_digest: str | None = None
    port: int = 8080
    cache_dir: Path = Path(tempfile.gettempdir()) / "chips"
    concurrency: int = 1
    max_body_bytes: int = 31 * 1024 * 1024
    predict: Path | None = None  # code of the model's author that replaces what predict.py has
    batch_target_ms: int | None = (
        None  # None: those that wait anyway are predicted together; 0: each by itself
    )
    predict_route: str | None = None  # Vertex AI's own paths, next to the contract's
    health_route: str | None = None
    project: str = ""
    service: str = ""
    revision: str = ""


def available_cpus() -> int:
    """The processors this process may use: fewer than the machine has, in a container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CGROUP.read_text().split()
        return max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):
        return allowed


def _unknown_names(environ: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(environ):
        if name.startswith("CHIPS_") and "__" not in name and name not in _OURS and name not in _THE_GATEWAYS:
            close = difflib.get_close_matches(name, _OURS, n=1)
            yield f"{name} is not known" + (f"; did you mean {close[0]}?" if close else "")


def read_config(environ: Mapping[str, str]) -> Config:
    """Read the environment; ConfigError lists everything that is wrong with it."""
    problems = list(_unknown_names(environ))

    def found(*names: str) -> tuple[str, str]:
        return next(((name, environ[name]) for name in names if environ.get(name)), (names[0], ""))

    def text(*names: str, pattern: re.Pattern[str] | None = None) -> str:
        name, value = found(*names)
        if value and pattern is not None and not pattern.fullmatch(value):
            problems.append(f"{name}={value[:80]!r} is not allowed there")
        return value

    def number(*names: str, default: int, least: int, most: int) -> int:
        name, value = found(*names)
        if not value:
            return default
        if not value.isascii() or not value.isdigit() or not least <= int(value[:12]) <= most:
            problems.append(f"{name}={value[:80]!r} is not a whole number from {least} to {most}")
            return default
        return int(value)

    artifact = text("CHIPS_ARTIFACT", "AIP_STORAGE_URI")
    if not artifact:
        problems.append(
            "CHIPS_ARTIFACT is not set: name the folder or gs://bucket/prefix/ of a published model"
        )
    own = text("CHIPS_PREDICT")
    if own and not Path(own).is_file():
        problems.append(f"CHIPS_PREDICT={own[:80]!r} is no file")
    config = Config(
        artifact=artifact,
        predict=Path(own).resolve() if own else None,
        model=text("CHIPS_MODEL", pattern=MODEL_NAME) or None,
        version=text("CHIPS_VERSION", pattern=VERSION) or None,
        artifact_digest=text("CHIPS_ARTIFACT_DIGEST", pattern=_DIGEST) or None,
        port=number("PORT", "AIP_HTTP_PORT", default=8080, least=0, most=65535),
        cache_dir=Path(text("CHIPS_CACHE_DIR") or Path(tempfile.gettempdir()) / "chips"),
        concurrency=number("CHIPS_CONCURRENCY", default=available_cpus(), least=1, most=1000),
        max_body_bytes=number("CHIPS_MAX_BODY_BYTES", default=31 * 1024 * 1024, least=1, most=2**31),
        batch_target_ms=number("CHIPS_BATCH_TARGET_MS", default=0, least=0, most=60_000)
        if environ.get("CHIPS_BATCH_TARGET_MS")
        else None,
        predict_route=text("AIP_PREDICT_ROUTE", pattern=_ROUTE) or None,
        health_route=text("AIP_HEALTH_ROUTE", pattern=_ROUTE) or None,
        project=text("GOOGLE_CLOUD_PROJECT"),
        service=text("K_SERVICE"),
        revision=text("K_REVISION"),
    )
    if problems:
        raise ConfigError(problems)
    return config
