"""Every setting, and the one place that reads them.

Sources, the later wins: defaults, `chips.toml`, environment, flags. What may change while the gateway runs is not a setting: it is
in the registry.
"""

from gateway.settings.cost import Cost
from gateway.settings.environment_outside_settings import (
    docker_folder,
    environment_for_backend,
    environments_file,
    gcloud_endpoint_override,
    named_environment,
    process_environment,
    state_folder,
    user_data_registry_url,
    wants_debug,
)
from gateway.settings.groups import (
    GROUPS,
    Auth,
    Edge,
    Limits,
    Log,
    Metrics,
    Server,
    Settings,
    Trace,
    Upstream,
)
from gateway.settings.loader import (
    EffectiveSetting,
    SettingsError,
    environment_variable_name,
    load_effective_settings,
    load_settings,
    setting_types,
)
from gateway.settings.rollouts import Rollouts
from gateway.settings.url_masking import mask_url

__all__ = [
    "GROUPS",
    "Auth",
    "Cost",
    "Edge",
    "EffectiveSetting",
    "Limits",
    "Log",
    "Metrics",
    "Rollouts",
    "Server",
    "Settings",
    "SettingsError",
    "Trace",
    "Upstream",
    "docker_folder",
    "environment_for_backend",
    "environment_variable_name",
    "environments_file",
    "gcloud_endpoint_override",
    "load_effective_settings",
    "load_settings",
    "mask_url",
    "named_environment",
    "process_environment",
    "setting_types",
    "state_folder",
    "user_data_registry_url",
    "wants_debug",
]
