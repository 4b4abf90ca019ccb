"""Make google-schema.json.gz: the argument schema of the resources that deploy/terraform uses.

    npm pack @cdktf/provider-google && tar xzf cdktf-provider-google-*.tgz package/.jsii
    python -m tests.deploy.extract_schema package/.jsii

That package is generated from the provider's own schema, release 6.50.0, and holds it in another form: each argument's
documentation links to the provider's page, whose anchor is the argument's name. A block is
`{"a": {name: [type, flag]}, "b": {name: [nesting, block, least]}}`; the flags are r required, o optional, c computed,
oc both; types are written as Terraform's type expressions in JSON. Run it again when a resource type is added.
"""

import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

from tests.deploy.provider import SCHEMA

_LINK = re.compile(
    r"/providers/hashicorp/google/([\d.]+)/docs(?:/(resources|data-sources))?/?([a-z0-9_]*)#(\w+)"
)
_USED = re.compile(r'^(?:resource|data) "(google_\w+)"', re.MULTILINE)
_PRIMITIVES = {"string": "string", "number": "number", "boolean": "bool", "any": "dynamic"}

Type = dict[str, Any]


class Assembly:
    def __init__(self, types: dict[str, Type]) -> None:
        self._types = types

    def schema(self, used: set[str]) -> dict[str, Any]:
        found: dict[str, Any] = {"resource": {}, "data": {}}
        for name, kind in self._types.items():
            if not self._is_config(kind):
                continue
            link = self._page(kind)
            if link is None or f"google_{link[3]}" not in used:
                continue
            block = self._block(name)
            self._add_computed(block, self._types.get(name.removesuffix("Config"), {}))
            block["a"]["id"] = ["string", "oc"]
            found["resource" if link[2] == "resources" else "data"][f"google_{link[3]}"] = block
        found["config"] = self._provider_config()
        missing = used - set(found["resource"]) - set(found["data"])
        if missing:
            raise SystemExit(f"not found: {sorted(missing)}")
        return found

    @staticmethod
    def _is_config(kind: Type) -> bool:
        return (
            kind["kind"] == "interface"
            and kind["name"].endswith("Config")
            and any(base.endswith("TerraformMetaArguments") for base in kind.get("interfaces", ()))
        )

    @staticmethod
    def _page(kind: Type) -> re.Match[str] | None:
        links = (_LINK.search(json.dumps(p.get("docs", {}))) for p in kind.get("properties", ()))
        return next((link for link in links if link and link[2]), None)

    def _block(self, name: str) -> dict[str, Any]:
        block: dict[str, Any] = {"a": {}, "b": {}}
        for argument in self._types[name].get("properties", ()):
            link = _LINK.search(json.dumps(argument.get("docs", {})))
            if link is None:
                continue
            required = not argument.get("optional")
            kind = self._kind(argument["type"])
            if isinstance(kind, tuple):
                nesting, inner = kind
                block["b"][link[4]] = [nesting, self._block(inner), int(required)]
            else:
                block["a"][link[4]] = [kind, "r" if required else "o"]
        return block

    def _kind(self, given: Type) -> Any:
        """A Terraform type, or (nesting, name) where it is a block."""
        if "primitive" in given:
            return _PRIMITIVES[given["primitive"]]
        if "collection" in given:
            collection = given["collection"]
            inner = self._kind(collection["elementtype"])
            if isinstance(inner, tuple):
                return "list", inner[1]
            return ["list" if collection["kind"] == "array" else "map", inner]
        if "union" in given:
            return self._kind(next(t for t in given["union"]["types"] if t.get("fqn") != "cdktf.IResolvable"))
        return "dynamic" if given["fqn"] == "cdktf.IResolvable" else ("single", given["fqn"])

    def _add_computed(self, block: dict[str, Any], of: Type) -> None:
        """What can be read of a resource and not written: the class has it, the arguments do not."""
        for attribute in of.get("properties", ()):
            name = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", attribute["name"]).lower()
            if (
                attribute.get("static")
                or attribute.get("overrides")
                or attribute["name"].endswith("Input")
                or name in block["a"]
                or name in block["b"]
            ):
                continue
            given = attribute["type"]
            kind: Any = "dynamic"
            if "primitive" in given or "collection" in given:
                kind = self._kind(given)
            elif given.get("fqn") in {"cdktf.StringMap", "cdktf.BooleanMap"}:
                kind = ["map", "string" if given["fqn"].endswith("StringMap") else "bool"]
            if not isinstance(kind, tuple):
                block["a"][name] = [kind, "c"]

    def _provider_config(self) -> dict[str, Any]:
        return {
            "a": {
                name: ["string", "o"] for name in ("project", "region", "zone", "credentials", "access_token")
            },
            "b": {},
        }


def main() -> None:
    types = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["types"]
    used = {
        name
        for path in Path("deploy/terraform").rglob("*.tf")
        for name in _USED.findall(path.read_text(encoding="utf-8"))
    }
    schema = Assembly(types).schema(used)
    content = json.dumps(schema, separators=(",", ":"), sort_keys=True).encode()
    SCHEMA.write_bytes(gzip.compress(content, 9, mtime=0))
    print(
        f"{len(schema['resource'])} resources, {len(schema['data'])} data sources, {SCHEMA.stat().st_size} bytes"
    )


if __name__ == "__main__":
    main()
