"""Load the settings from defaults, `chips.toml`, the environment and flags.

The later source wins. Everything that is wrong is reported at once, with where it came from.
"""

import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from gateway.audit.anchor_store import open_anchor_store
from gateway.auth.authenticator_plugins import validate_authenticator_names
from gateway.core.decode_text_file import decode_text_file
from gateway.core.ip_network_set import parse_network
from gateway.core.model_cors_policy import ANY, origin_problem
from gateway.core.suggestions import suggest
from gateway.core.token_and_certificate_rules import (
    ForwardedCertificateRule,
    IssuerRule,
    certificate_rule_problems,
    issuer_rule_problems,
)
from gateway.registry.fallback_copy import open_fallback
from gateway.registry.open_by_url import open_registry
from gateway.settings.contradictions import find_contradictions
from gateway.settings.environment_outside_settings import state_folder, user_data_registry_url
from gateway.settings.groups import GROUPS, Auth, Settings
from gateway.settings.url_masking import mask_url

_OTHER_NAMES = frozenset(
    f"CHIPS_{name}"
    for name in (
        *("CONFIG", "DEBUG", "ENV", "ENVIRONMENTS", "GATEWAY", "KEY", "TESTS_REQUIRE"),
        *("MODEL", "VERSION", "ARTIFACT", "CACHE_DIR", "CONCURRENCY", "MAX_BODY_BYTES"),
        *("ARTIFACT_DIGEST", "BATCH_TARGET_MS"),
    )
)
# Names that platforms set; ours win over them.
_PLATFORM_NAMES = {
    "PORT": "server.port",
    "GOOGLE_CLOUD_PROJECT": "log.project",
    "K_SERVICE": "trace.service",
    "GCE_METADATA_HOST": "upstream.metadata_host",
}


class EffectiveSetting(NamedTuple):
    """One setting: its effective value, and where that came from."""

    name: str  # group.name
    value: Any
    source: str


class SettingsError(Exception):
    """The settings cannot be used. `problems` lists everything that is wrong, a sentence each."""

    def __init__(self, problems: list[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{count} in the settings:\n" + "\n".join(f"  - {problem}" for problem in problems))
        self.problems = problems


def load_settings(
    *,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
    defaults: Mapping[str, str] | None = None,
) -> Settings:
    """Load the settings from all sources.

    `flags` is by name (`{"server.port": "80"}`); raises SettingsError. `defaults` stand in for the built-in ones, and
    everything else wins over them.
    """
    return _Loader(os.environ if environ is None else environ).load(flags or {}, config, defaults or {})[0]


def load_effective_settings(
    *,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> list[EffectiveSetting]:
    """Load every setting with its effective value and its source. All of it is safe to show. Raises SettingsError."""
    environ = os.environ if environ is None else environ
    settings, sources = _Loader(environ).load(flags or {}, config, {})
    return [
        EffectiveSetting(
            name, mask_url(value) if isinstance(value, str) else value, sources.get(name, "default")
        )
        for name, value in _flatten(settings)
    ]


def setting_types() -> dict[str, Any]:
    """The name and annotated type of every setting. They are in the order of the reference page."""
    types = {
        name: hint
        for name, hint in get_type_hints(Settings, include_extras=True).items()
        if name not in GROUPS
    }
    for group, struct in GROUPS.items():
        types |= {
            f"{group}.{name}": hint for name, hint in get_type_hints(struct, include_extras=True).items()
        }
    return types


def environment_variable_name(setting: str) -> str:
    """The name of a setting's environment variable. `server.port` is CHIPS_SERVER__PORT."""
    return "CHIPS_" + setting.upper().replace(".", "__")


class _Loader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._types = setting_types()
        self._values: dict[str, Any] = {}
        self._sources: dict[str, str] = {}
        self._problems: list[str] = []

    def load(
        self, flags: Mapping[str, str], config: Path | None, defaults: Mapping[str, str]
    ) -> tuple[Settings, dict[str, str]]:
        self._values["registry"] = user_data_registry_url(self._environ)
        for name, text in defaults.items():
            self._take(name, text, "the environment in use")
        self._values["trace.store"] = str(state_folder(self._environ) / "requests.db")
        self._read_file(config)
        self._read_environment()
        for name, text in flags.items():
            self._take(name, text, f"--{name}")
        self._check_networks()
        self._check_trust()
        self._check_origins()
        self._check_auth()
        self._check_shared()
        self._check_registry()
        if self._problems:
            raise SettingsError(self._problems)
        nested: dict[str, Any] = {}
        for name, value in self._values.items():
            group, _, field = name.rpartition(".")
            (nested.setdefault(group, {}) if group else nested)[field] = value
        settings = msgspec.convert(nested, Settings)
        found = find_contradictions(
            settings, on_cloud_run=bool(self._environ.get("K_SERVICE")), given=self._sources
        )
        if found:
            raise SettingsError(found)
        return settings, self._sources

    def _read_file(self, config: Path | None) -> None:
        named = config or (Path(self._environ["CHIPS_CONFIG"]) if self._environ.get("CHIPS_CONFIG") else None)
        path = named or Path("chips.toml")
        if named is None and not path.exists():
            return
        try:
            text = decode_text_file(path.read_bytes())
        except OSError as error:
            self._problems.append(f"{path} cannot be read: {error.strerror}")
            return
        except ValueError as error:
            self._problems.append(f"{path} {error}")
            return
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            self._problems.append(f"{path} is not valid TOML: {error}")
            return
        for key, value in content.items():
            if key in GROUPS and isinstance(value, dict):
                for field, inner in value.items():
                    self._take(f"{key}.{field}", inner, str(path))
            else:
                self._take(key, value, str(path))

    def _read_environment(self) -> None:
        for name, setting in _PLATFORM_NAMES.items():
            if self._environ.get(name):
                self._take(setting, self._environ[name], f"${name}")
        if self._environ.get("PORT"):  # a container platform: its proxy comes from another address
            self._take("server.host", "0.0.0.0", "$PORT")  # noqa: S104
        if self._environ.get("K_SERVICE"):  # Cloud Run: backends are elsewhere, and want to know who calls
            self._take("upstream.policy", "cloud", "$K_SERVICE")
            self._take("upstream.identity", "google", "$K_SERVICE")
        for name in sorted(self._environ):
            if name.startswith("CHIPS_") and name not in _OTHER_NAMES:
                setting = name.removeprefix("CHIPS_").lower().replace("__", ".")
                self._take(setting, self._environ[name], f"${name}")

    def _take(self, name: str, value: Any, source: str) -> None:
        hint = self._types.get(name)
        if hint is None:
            meant = suggest(name, self._types, cutoff=0.5)
            self._problems.append(f"{name}: there is no such setting (from {source}){meant}")
            return
        try:
            if isinstance(value, str) and _is_list(hint):
                value = _parts(value)
            # Text from the environment becomes a number here; a number in the file must be one.
            converted = msgspec.convert(value, hint, strict=not source.startswith(("$", "--")))
        except msgspec.MsgspecError as error:
            reason = str(error).partition(" - at `")[0]
            self._problems.append(f"{name}: {_shown(value)} will not do: {reason} (from {source})")
            return
        if isinstance(converted, float) and not math.isfinite(converted):
            self._problems.append(f"{name}: {_shown(value)} will not do: it must be finite (from {source})")
            return
        self._values[name] = converted
        self._sources[name] = source

    def _check_networks(self) -> None:
        for name in ("edge.networks", "edge.trusted_proxies", "trace.trusted_networks", "upstream.networks"):
            for network in self._values.get(name, ()):
                try:
                    parse_network(network)
                except ValueError as error:
                    self._problems.append(f"{name}: {error} (from {self._sources[name]})")

    def _check_trust(self) -> None:
        if self._values.get("edge.trusted_hops") and self._values.get("edge.trusted_proxies"):
            self._problems.append("edge: give either trusted_hops or trusted_proxies, not both")

    def _check_origins(self) -> None:
        for origin in self._values.get("edge.cors_origins", ()):
            if origin != ANY:
                source = self._sources["edge.cors_origins"]
                self._problems += [
                    f"edge.cors_origins: {problem} (from {source})" for problem in origin_problem(origin)
                ]

    def _check_shared(self) -> None:
        url = self._values.get("limits.redis_url", "")
        if url and not url.startswith(("redis://", "rediss://")):
            self._problems.append(
                f"limits.redis_url: it must begin with redis:// or rediss:// (from {self._sources['limits.redis_url']})"
            )

    def _check_auth(self) -> None:
        issuers: tuple[IssuerRule, ...] = self._values.get("auth.issuers", ())
        certificates: tuple[ForwardedCertificateRule, ...] = self._values.get("auth.certificates", ())
        for issuer in issuers:
            self._problems += [
                f"auth.issuers: {issuer.name}: {problem}" for problem in issuer_rule_problems(issuer)
            ]
        for entry in certificates:
            found = certificate_rule_problems(entry)
            self._problems += [f"auth.certificates: {entry.name}: {problem}" for problem in found]
        trusts = self._values.get("edge.trusted_hops") or self._values.get("edge.trusted_proxies")
        if certificates and not trusts:
            self._problems.append(
                "auth.certificates: nobody's headers are believed; set edge.trusted_proxies (or trusted_hops)"
            )
        try:
            validate_authenticator_names(self._values.get("auth.chain", Auth().chain))
        except ValueError as error:
            self._problems.append(f"auth.chain: {error} (from {self._sources['auth.chain']})")

    def _check_registry(self) -> None:
        try:
            open_registry(self._values["registry"])
        except ValueError as error:
            self._problems.append(f"registry: {error} (from {self._sources.get('registry', 'default')})")
        try:
            open_registry(self._values.get("rollouts.figures") or "memory://")
        except ValueError as error:
            self._problems.append(f"rollouts.figures: {error} (from {self._sources['rollouts.figures']})")
        try:
            open_fallback(self._values.get("registry_fallback") or "file:/none")
        except ValueError as error:
            self._problems.append(f"registry_fallback: {error} (from {self._sources['registry_fallback']})")
        try:
            open_anchor_store(self._values.get("audit.second_place") or ".")
        except ValueError as error:
            self._problems.append(f"audit.second_place: {error} (from {self._sources['audit.second_place']})")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:99] + "…"


def _parts(text: str) -> Any:
    """A list from the environment or a flag: parts between commas, or an array in JSON."""
    if text.lstrip().startswith("["):
        return msgspec.json.decode(text.encode("utf-8"))
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_list(hint: Any) -> bool:
    return get_origin(get_args(hint)[0] if get_origin(hint) is Annotated else hint) is tuple


def _flatten(settings: Settings) -> list[tuple[str, Any]]:
    flat = []
    for name in setting_types():
        group, _, field = name.rpartition(".")
        flat.append((name, getattr(getattr(settings, group) if group else settings, field)))
    return flat
