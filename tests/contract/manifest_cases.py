"""The cases of backends/manifest-cases.json, as the bytes of a manifest each."""

import copy
import json
from typing import Any, NamedTuple

from tests.contract.backends.process import ROOT

_FILE = ROOT / "backends/manifest-cases.json"


class Case(NamedTuple):
    name: str
    valid: bool
    content: bytes


def load_cases() -> list[Case]:
    given = json.loads(_FILE.read_text(encoding="utf-8"))
    return [Case(case["name"], case["valid"], _content(given["base"], case)) for case in given["cases"]]


def _content(base: dict[str, Any], case: dict[str, Any]) -> bytes:
    document = copy.deepcopy(base)
    raw: dict[str, bytes] = {}

    def put(pointer: str, value: Any) -> None:
        holder, name = _find(document, pointer)
        holder[name] = value

    def put_raw(pointer: str, text: bytes) -> None:
        mark = f"@{len(raw)}@"
        raw[mark] = text
        put(pointer, mark)

    for pointer, value in case.get("set", {}).items():
        put(pointer, value)
    for pointer, text in case.get("raw", {}).items():
        put_raw(pointer, text.encode())
    for pointer, text in case.get("latin1", {}).items():
        put_raw(pointer, b'"' + text.encode("latin-1") + b'"')
    if "deep" in case:
        put_raw(case["deep"], b"[" * 100_000 + b"]" * 100_000)
    for pointer in case.get("remove", ()):
        holder, name = _find(document, pointer)
        del holder[name]
    content = json.dumps(document, ensure_ascii=False).encode()
    for mark, written in raw.items():
        content = content.replace(b'"' + mark.encode() + b'"', written)
    whole: bytes = case.get("text", "%s").encode().replace(b"%s", content)
    return whole


def _find(document: Any, pointer: str) -> tuple[Any, Any]:
    *path, last = pointer.removeprefix("/").split("/")
    for name in path:
        document = document[int(name) if isinstance(document, list) else name]
    return document, int(last) if isinstance(document, list) else last
