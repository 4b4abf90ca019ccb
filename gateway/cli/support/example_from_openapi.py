"""Make an example request body from an OpenAPI document. The POST operations of the document are found here, too."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

_JSON: Final = "application/json"
_DEEPEST: Final = 6
_SERVICE_PATHS: Final = ("/livez", "/readyz", "/healthz", "/health", "/ping", "/metrics", "/shutdown")
_VALUES: Final[Mapping[str, Any]] = {
    "number": 0,
    "integer": 0,
    "string": "text",
    "boolean": True,
    "null": None,
}


def post_operations(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The POST operations of an OpenAPI document, by path.

    They are those that may score. Paths with parameters in them, and those of the service's own pages, are left out.
    """
    paths = document.get("paths")
    found: dict[str, Mapping[str, Any]] = {}
    for path, item in (paths if isinstance(paths, dict) else {}).items():
        operation = item.get("post") if isinstance(item, dict) else None
        if isinstance(operation, dict) and "{" not in path and path not in _SERVICE_PATHS:
            found[path] = operation
    return found


def server_base_paths(document: Mapping[str, Any]) -> list[str]:
    """The paths of the document's server URLs. They have no slash at the end. Those with variables are left out."""
    servers = document.get("servers")
    found = []
    for server in servers if isinstance(servers, list) else []:
        url = server.get("url") if isinstance(server, dict) else None
        if isinstance(url, str) and "{" not in url:
            try:
                path = urlsplit(url).path.rstrip("/")
            except ValueError:
                continue
            if path.startswith("/"):
                found.append(path)
    return found


def request_body_example(document: Mapping[str, Any], operation: Mapping[str, Any]) -> Any:
    """An example request body of an operation.

    It is None where the operation has none. It comes from the operation's example or schema.
    """
    content = _at(_resolved(document, operation.get("requestBody")), "content", _JSON)
    if not isinstance(content, dict):
        return None
    examples = content.get("examples")
    if "example" in content:
        return content["example"]
    if isinstance(examples, dict) and examples:
        first = _resolved(document, next(iter(examples.values())))
        if isinstance(first, dict) and "value" in first:
            return first["value"]
    return _of_schema(document, content.get("schema"), 0)


def _of_schema(document: Mapping[str, Any], schema: Any, depth: int) -> Any:
    schema = _resolved(document, schema)
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return None
    for key in ("example", "default", "const"):
        if schema.get(key) is not None:
            return schema[key]
    for key in ("examples", "enum"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            return _of_schema(document, schema[key][0], depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "array":
        return [_of_schema(document, schema.get("items"), depth + 1)]
    properties = schema.get("properties")
    if kind == "object" or isinstance(properties, dict):
        return {
            name: _of_schema(document, inner, depth + 1)
            for name, inner in (properties if isinstance(properties, dict) else {}).items()
        }
    return _VALUES.get(str(kind))


def _resolved(document: Mapping[str, Any], value: Any) -> Any:
    """Follow `$ref` within the document, as far as it leads."""
    for _ in range(_DEEPEST):
        reference = value.get("$ref") if isinstance(value, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return value
        value = _at(
            document, *(part.replace("~1", "/").replace("~0", "~") for part in reference[2:].split("/"))
        )
    return None


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
