"""What all tests share: a clean environment, the Cloud Storage server, and honesty about what was skipped."""

import gc
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, settings

from tests.patience import measure, patience

if TYPE_CHECKING:
    from tests.flow.background_servers import BackgroundServers
    from tests.unit.cli.shell import Shell

pytest_plugins = [
    "tests.closing",
    "tests.leftovers",
    "tests.process_state",
    "tests.firestore.fixture",
    "tests.gcs.fixture",
    "tests.redis_server",
]

_CLEARED = (
    "http_proxy",
    "https_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "all_proxy",
    "PORT",
    "SSH_AUTH_SOCK",
    "PAGER",
    "BROWSER",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
)

# A shell starts its background jobs with Ctrl-C ignored, and their children inherit that; tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What prints looks at these when it is imported, before any fixture; some shells, and pytest-xdist, set them.
for _name in ("COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE"):
    os.environ.pop(_name, None)

# What the clouds' libraries read; removed at once, since servers that several tests share start before any test.
for _name in list(os.environ):
    if _name.startswith(("GOOGLE_", "CLOUDSDK_", "GCE_", "OTEL_", "K_", "STORAGE_EMULATOR_", "FIRESTORE_")):
        del os.environ[_name]

# How long one example takes says how busy the machine is, not whether the code is right. The examples are the same in each
# run; `--hypothesis-profile=explore` draws others.
_ANY_SPEED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("explore", derandomize=False, print_blob=True, **_ANY_SPEED)
settings.register_profile("chips", derandomize=True, database=None, **_ANY_SPEED)
settings.load_profile("chips")


# Whole folders that `make test` leaves out, as it does single tests by their mark: real models of real libraries, and a Julia
# that compiles its program at each start. tests/flow/test_cli_new.py has a Julia backend in every run.
_SLOW_FOLDERS = ("tests/zoo/", "tests/contract/backends/julia/")


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.nodeid.startswith(_SLOW_FOLDERS):
        item.add_marker("slow")


def _limit_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0] if marker else item.config.getini("timeout"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for processes that they have started."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return cores + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with tests that may take long come first, so that the last one does not run alone on one core."""
    longest: dict[Path, float] = {}
    for item in items:
        longest[item.path] = max(longest.get(item.path, 0.0), _limit_s(item))
    items.sort(key=lambda item: -longest[item.path])


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What was collected lives to the end: without it the full collections after some hundreds of tests take a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """The limit that ends a hanging test grows with how slow this machine is by now."""
    measure()
    limit_s = patience(_limit_s(item))
    item.add_marker(pytest.mark.timeout(limit_s), append=False)
    if item.get_closest_marker("one_day"):
        _wait_out_midnight(limit_s)
    return (yield)


_DAY_S: Final = 86_400


def _wait_out_midnight(limit_s: float) -> None:
    """Quotas and budgets begin again at midnight UTC; a test that counts them would not hold across it."""
    left_s = _DAY_S - time.time() % _DAY_S
    if left_s < min(limit_s, 600):
        time.sleep(left_s + 0.1)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No setting of the developer's own reaches a test, and no test reaches the developer's files."""
    for name in os.environ:
        if name.startswith(("CHIPS_", "AIP_")) and name != "CHIPS_TESTS_REQUIRE":
            monkeypatch.delenv(name)
    for name in _CLEARED:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def background() -> "Iterator[BackgroundServers]":
    from tests.flow.background_servers import BackgroundServers  # a whole gateway, which few tests need

    servers = BackgroundServers()
    yield servers
    servers.close()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Shell":
    from tests.unit.cli.shell import Shell

    return Shell(tmp_path, monkeypatch, capsys)


def require(name: str, *, available: bool, why: str) -> None:
    """
    Skip where a toolchain is missing, unless CHIPS_TESTS_REQUIRE demands it.

    That is `all`, or a list of names; `all,-julia` is all but one.
    """
    if available:
        return
    required = os.environ.get("CHIPS_TESTS_REQUIRE", "").split(",")
    if ("all" in required and f"-{name}" not in required) or name in required:
        pytest.fail(f"{name} is required here, but {why}")
    pytest.skip(f"{name}: {why}", allow_module_level=True)
