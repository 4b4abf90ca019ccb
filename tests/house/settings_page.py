"""The reference page of the settings, made from gateway/settings."""

from collections.abc import Iterator
from operator import attrgetter
from typing import Any, Literal, get_args, get_origin

from msgspec import Meta

from gateway.settings import (
    GROUPS,
    Settings,
    environment_variable_name,
    setting_types,
    user_data_registry_url,
)

HEAD = """\
# Settings

<!-- Made from gateway/settings: `make docs` writes this page. -->

Every setting can be given in three ways; the later wins:

1. `chips.toml` in the working folder, or the file that `--config` or `CHIPS_CONFIG` names,
2. the environment,
3. flags of `chips serve` and `python -m gateway`.

The same port, three times:

```toml
# chips.toml
[server]
port = 9000
```

<!-- not run: a test of its own runs it (tests/unit/test_settings.py) -->

```console
$ CHIPS_SERVER__PORT=9000 chips serve
$ chips serve --server.port=9000
```

A list is an array in the file; elsewhere its parts are separated by commas. What is wrong is reported all at once, each
with where it came from, before anything listens, and ends with exit code 78; a name that is not known is an error too.
`chips check` shows the settings in force and where each comes from. What may change while the gateway runs, models, keys
and their limits, is not a setting: it is in the registry.
"""


def render() -> str:
    return "\n".join([HEAD, *_groups()])


def _groups() -> Iterator[str]:
    types = setting_types()
    defaults = Settings(registry=user_data_registry_url({"HOME": "/$HOME"}).replace("/$HOME", "$HOME"))
    for group in ("", *GROUPS):
        names = [name for name in types if name.rpartition(".")[0] == group]
        if not names:
            continue
        yield f"## {group or 'General'}\n"
        yield "| setting | environment | type | default | |\n|---|---|---|---|---|"
        for name in names:
            hint, meta = get_args(types[name])
            default = attrgetter(name)(defaults)
            yield (
                f"| `{name}` | `{environment_variable_name(name)}` | {_type(hint, meta)} | {_default(default)} "
                f"| {meta.description} |"
            )
        yield ""


def _type(hint: Any, meta: Meta) -> str:
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return "list"
    kind = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`"}.get(hint, str(hint))
    limits = (("above", meta.gt), ("from", meta.ge), ("to", meta.le), ("below", meta.lt))
    bounds = [f"{word} {limit}" for word, limit in limits if limit is not None]
    return " ".join([kind, *bounds])


def _default(value: Any) -> str:
    if value in ("", ()):
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f"`{part}`" for part in value)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:_}`" if isinstance(value, int) and value >= 100_000 else f"`{value}`"
