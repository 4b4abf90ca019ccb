"""The environment a backend is started with: checked whole, before anything else happens."""

import difflib
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_MODEL_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ROUTE = re.compile(r"/[A-Za-z0-9._~/-]*")

_OURS = (
    "CHIPS_MODEL",
    "CHIPS_VERSION",
    "CHIPS_ARTIFACT",
    "CHIPS_CACHE_DIR",
    "CHIPS_CONCURRENCY",
    "CHIPS_MAX_BODY_BYTES",
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
    model: str
    version: str
    artifact: str
    port: int = 8080
    cache_dir: Path = Path(tempfile.gettempdir()) / "chips"
    concurrency: int = 1
    max_body_bytes: int = 31 * 1024 * 1024
    predict_route: str | None = None  # Vertex AI's own paths, beside the contract's
    health_route: str | None = None
    project: str = ""


def available_cpus() -> int:
    """The processors this process may use: fewer than the machine has, in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_config(environ: Mapping[str, str]) -> Config:
    """Read the environment; ConfigError lists everything that is wrong with it."""
    problems: list[str] = []
    for name in sorted(environ):
        if name.startswith("CHIPS_") and "__" not in name and name not in _OURS and name not in _THE_GATEWAYS:
            close = difflib.get_close_matches(name, _OURS, n=1)
            problems.append(f"{name} is not known" + (f"; did you mean {close[0]}?" if close else ""))

    def text(name: str, *others: str, pattern: re.Pattern[str] | None = None, required: bool = False) -> str:
        value = next((environ[key] for key in (name, *others) if environ.get(key)), "")
        if required and not value:
            problems.append(f"{name} is not set")
        elif value and pattern is not None and not pattern.fullmatch(value):
            problems.append(f"{name}={value[:80]!r} is not allowed there")
        return value

    def number(name: str, *others: str, default: int, least: int, most: int) -> int:
        value = text(name, *others)
        if not value:
            return default
        if not value.isascii() or not value.isdigit() or not least <= int(value[:12]) <= most:
            problems.append(f"{name}={value[:80]!r} is not a whole number from {least} to {most}")
            return default
        return int(value)

    config = Config(
        model=text("CHIPS_MODEL", pattern=_MODEL_NAME, required=True),
        version=text("CHIPS_VERSION", pattern=_VERSION, required=True),
        artifact=text("CHIPS_ARTIFACT", "AIP_STORAGE_URI", required=True),
        port=number("PORT", "AIP_HTTP_PORT", default=8080, least=0, most=65535),
        cache_dir=Path(text("CHIPS_CACHE_DIR") or Path(tempfile.gettempdir()) / "chips"),
        concurrency=number("CHIPS_CONCURRENCY", default=available_cpus(), least=1, most=1000),
        max_body_bytes=number("CHIPS_MAX_BODY_BYTES", default=31 * 1024 * 1024, least=1, most=2**31),
        predict_route=text("AIP_PREDICT_ROUTE", pattern=_ROUTE) or None,
        health_route=text("AIP_HEALTH_ROUTE", pattern=_ROUTE) or None,
        project=text("GOOGLE_CLOUD_PROJECT"),
    )
    if problems:
        raise ConfigError(problems)
    return config
