"""A gateway imports what its settings ask for and no more: most of its start is imports (docs/performance.md)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import gateway

# Libraries that a gateway with the default settings may load. One more costs each start: import it where it is used.
LIBRARIES = {
    *("aiohappyeyeballs", "aiohttp", "aiosignal", "attr", "brotli", "brotlicffi", "cachetools", "frozenlist", "idna"),
    *("msgspec", "multidict", "propcache", "typing_extensions", "uvloop", "yarl", "zstandard", "aiodns", "pycares"),
}  # fmt: skip
# Parts of the gateway that only some settings, or other commands, need.
ASIDE = (
    *("artifacts", "audit.periodic_anchoring", "auth.caller_token_signer", "auth.jwks", "auth.jwt", "cli", "control.health_and_openapi_cors", "deploy"),
    *("cost.billing_export", "cost.google_price_catalogue", "cost.estimate", "cost.google_api"),
    *("registry.firestore", "rollout.webhook", "server.aiohttp_adapter", "telemetry.otlp_trace_encoding", "telemetry.trace_sinks", "testing"),
    *("upstream.aiohttp_client", "verify"),
)  # fmt: skip
SCRIPT = """
import asyncio, io, json, sys
import gateway.serve
from gateway.app import Gateway
from gateway.settings import load_settings
from gateway.telemetry.logs import LogWriter

async def start_and_stop(flags):
    gateway = Gateway(load_settings(flags=flags, environ={}), LogWriter(io.TextIOWrapper(io.BytesIO())))
    await gateway.start()
    await gateway.stop()

asyncio.run(start_and_stop(json.loads(sys.argv[1])))
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("start")
    flags = {"registry": f"sqlite://{folder}/r.db", "server.port": "0", "trace.store": f"{folder}/t.db"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(flags)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_no_library_is_imported_that_the_default_settings_do_not_need(imported: set[str]):
    found = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    # What begins with an underscore, and the last three, no import of ours brings: compiled parts, and what tools add to each start.
    known = LIBRARIES | {"gateway", "cython_runtime", "coverage", "sitecustomize"}
    assert not sorted(name for name in found - known if not name.startswith("_")), (
        "import them where they are used"
    )


def test_each_part_is_there():
    folder = Path(gateway.__file__).parent
    paths = [folder.joinpath(*name.split(".")) for name in ASIDE]
    assert not [path for path in paths if not (path.is_dir() or path.with_suffix(".py").is_file())]


def test_no_part_is_imported_that_the_default_settings_do_not_need(imported: set[str]):
    assert "gateway.pipeline" in imported
    aside = tuple(f"gateway.{name}" for name in ASIDE)
    found = sorted(
        name for name in imported if name in aside or name.startswith(tuple(f"{name}." for name in aside))
    )
    assert not found, "import them where they are used"
