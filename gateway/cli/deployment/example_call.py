"""Make an example call of a model that was just deployed. It consists of commands to paste into a shell, in order."""

import shlex
from typing import Any, Final

import msgspec

from gateway.artifacts.manifest import Manifest

_LONGEST_BODY: Final = 2_000  # characters: a longer line is no help on a terminal
_KEY: Final = ' -H "X-Api-Key: $KEY"'


def example_shell_commands(address: str, manifest: Manifest, *, needs_key: bool) -> list[tuple[str, str]]:
    """The shell commands of an example call, in order, as (label, command).

    The first creates a key, if the model needs one; then `curl` sends a row for the model to `address`.

    Empty where no row is known, or where it is too long for a terminal.
    """
    request = _request(manifest)
    body = msgspec.json.encode(request).decode()
    if request is None or len(body) > _LONGEST_BODY:
        return []
    key = [("key", f"KEY=$(chips keys create me --models {manifest.model})")] if needs_key else []
    return [
        *key,
        ("try", f"curl {shlex.quote(address)}{_KEY if needs_key else ''} --json {shlex.quote(body)}"),
    ]


def _request(manifest: Manifest) -> Any:
    """A sample's request, or else a row by name, to be filled in."""
    if manifest.samples:
        return manifest.samples[0].request
    inputs = manifest.signature.inputs
    if not inputs or any(len(tensor.shape) > 1 for tensor in inputs):
        return None
    return {"instances": [{tensor.name: _value(tensor) for tensor in inputs}]}


def _value(tensor: Any) -> Any:
    if tensor.categories:
        return tensor.categories[0]
    return {"BYTES": "text", "BOOL": True}.get(tensor.datatype, 0)
