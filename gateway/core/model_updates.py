"""Pure functions that change a model's registry document.

They add a backend, remove a version, shift traffic, and find differences.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gateway.core.model import Backend, Model, Policy, Tensor
from gateway.core.sticky_shares import StickyShares, assign_slots


def with_backend(model: Model, backend: Backend, traffic_percent: int | None) -> Model:
    """`model` with `backend` added, or replacing the one of its version.

    `traffic_percent` None keeps a version's traffic as it is: 0 % for a further version, 100 % for the first. The other
    versions are scaled in proportion, so that all add up to 100.
    """
    versions = [known.version for known in model.backends]
    if backend.version in versions:
        backends = tuple(backend if known.version == backend.version else known for known in model.backends)
    else:
        backends = (*model.backends, backend)
    traffic = dict(model.traffic)
    if traffic_percent is None:
        traffic_percent = traffic.get(backend.version, 0) if versions else 100
    return msgspec.structs.replace(
        model, backends=backends, traffic=shift_traffic(traffic, backend.version, traffic_percent)
    )


def remove_version_and_rescale(model: Model, version: str) -> Model:
    """`model` without `version`, the other versions' traffic scaled up. They get its traffic in proportion."""
    traffic = shift_traffic(model.traffic, version, 0)
    traffic.pop(version, None)
    backends = tuple(backend for backend in model.backends if backend.version != version)
    return msgspec.structs.replace(model, backends=backends, traffic=traffic)


def shift_traffic(traffic: Mapping[str, int], version: str, percent: int) -> dict[str, int]:
    """`traffic` with `version` at `percent`, the others scaled in proportion.

    The result is whole numbers that add up to 100. Raises ValueError where nothing else could take the rest.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent} is not a percentage: use 0 to 100")
    others = {name: share for name, share in traffic.items() if name != version}
    rest = 100 - percent
    total = sum(others.values())
    if rest and not total:
        raise ValueError(f"no other version takes the remaining {rest} % of the traffic: use 100")
    scaled = {name: share * rest // total if total else 0 for name, share in others.items()}
    # Largest remainder: what whole numbers leave over goes to those that lost most by rounding.
    short = rest - sum(scaled.values())
    by_loss = sorted(others, key=lambda name: (-(others[name] * rest % total) if total else 0, name))
    for name in by_loss[:short]:
        scaled[name] += 1
    return {**scaled, version: percent}


def to_document(struct: msgspec.Struct) -> dict[str, Any]:
    """The registry document of `struct`. It has JSON values only: a document read back compares equal to the one written."""
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(struct))
    return document


def merge_document(old: Mapping[str, Any] | None, model: Model) -> dict[str, Any]:
    """The document of `model`, with the unknown fields of `old` kept, and sticky slots that follow the traffic.

    Unknown fields are those that this release does not know. A newer release may have written them; a change made with this
    one must not lose them. Every change of a model's traffic is written through here, so this is where sticky shares follow
    it.
    """
    if model.sticky is not None:
        model = msgspec.structs.replace(model, sticky=assign_slots(model.sticky, model.traffic))
    new = to_document(model)
    if old is None:
        return new
    merged = _keep_unknown(old, new, Model)
    for name, struct in (("policy", Policy), ("sticky", StickyShares)):
        if isinstance(old.get(name), Mapping) and (name == "policy" or name in new):
            inner = _keep_unknown(old[name], new.get(name, {}), struct)
            if inner:
                merged[name] = inner
    merged["backends"] = _keep_unknown_in_list(
        old.get("backends"), new.get("backends", []), Backend, by="version"
    )
    before = _by(old.get("backends"), "version")
    for backend in merged["backends"]:
        for field in ("inputs", "outputs"):
            if field in backend:
                known = before.get(backend["version"], {}).get(field)
                backend[field] = _keep_unknown_in_list(known, backend[field], Tensor, by="name")
    return merged


def _keep_unknown_in_list(
    old: Any, new: list[dict[str, Any]], struct: type[msgspec.Struct], *, by: str
) -> list[dict[str, Any]]:
    before = _by(old, by)
    return [_keep_unknown(before.get(item[by], {}), item, struct) for item in new]


def _by(items: Any, name: str) -> dict[Any, Mapping[str, Any]]:
    return {item.get(name): item for item in items or () if isinstance(item, Mapping)}


def _keep_unknown(
    old: Mapping[str, Any], new: Mapping[str, Any], struct: type[msgspec.Struct]
) -> dict[str, Any]:
    known = set(struct.__struct_fields__)
    return {**{name: value for name, value in old.items() if name not in known}, **new}


def differences(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> list[tuple[str, Any, Any]]:
    """The differences between two registry documents, as (path, before, after).

    None stands for "not there". Backends are matched by version.
    """
    before, after = dict(_leaves(old or {})), dict(_leaves(new or {}))
    paths = list(before) + [path for path in after if path not in before]
    return [
        (path, before.get(path), after.get(path)) for path in paths if before.get(path) != after.get(path)
    ]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif path == "backends" and isinstance(value, list):
        for backend in value:
            for name, inner in backend.items():
                if name != "version":
                    yield from _leaves(inner, f"version {backend.get('version')}: {name}")
    else:
        yield path, value
