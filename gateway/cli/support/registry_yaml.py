"""Write and read the YAML file that declares a registry. It holds models, networks, budgets, prices and saved plans."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import yaml

from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.core.escape_unprintable import printable, printable_json
from gateway.core.ip_network_set import parse_network
from gateway.core.model import parse_model
from gateway.cost.compare_plan_with_actual import read_plan
from gateway.registry.base import BUDGETS, MODELS, NETWORKS, PLANS, PRICES, Document, network_document_name
from gateway.registry.snapshot import read_budget, read_price_table

FORMAT: Final = 1
_MAX_BYTES: Final = 64 * 1024 * 1024
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
# Kinds whose documents stand in the file as they are. Each reader raises ValueError.
_AS_THEY_ARE: Final[Mapping[str, Callable[[Document], object]]] = {
    BUDGETS: read_budget,
    PRICES: read_price_table,
    PLANS: read_plan,
}
SECTIONS: Final = (MODELS, NETWORKS, *_AS_THEY_ARE)
# Of YAML 1.2 (core schema, 10.3.2); PyYAML follows YAML 1.1, where 1e5 and 089 are text that needs no quotes.
_NUMBER: Final = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|0o[0-7]+")

Declared = dict[str, dict[str, dict[str, Any]]]  # kind -> document name -> body


class _Dumper(yaml.SafeDumper):
    """Quotes text that other readers take for a number, and text of which some does not show and is written as escapes."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    hidden = printable(text.replace("\n", "")) != text.replace("\n", "")
    style = '"' if hidden else "'" if _NUMBER.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


class _Loader(yaml.SafeLoader):
    """Plain data only: no aliases, which can blow up; no key twice, of which one would be lost; no dates."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own way)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not taken", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def write_declaration(documents: Mapping[str, tuple[Document, ...]]) -> str:
    """The YAML text that declares `documents` (by kind)."""
    content: dict[str, Any] = {"chips": FORMAT}
    for kind, found in documents.items():
        content[kind] = dict(_entry(document) for document in found)
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return printable_json(text)  # YAML's escapes in double quotes are those of JSON


def _entry(document: Document) -> tuple[str, dict[str, Any]]:
    if document.problem:
        raise Failure(
            f"{document.kind}/{document.name} cannot be read ({document.problem}), so nothing is exported",
            hint=f"chips rollback {document.name} fixes it, chips deregister {document.name} removes it"
            if document.kind == MODELS
            else f"chips history --kind {document.kind} shows who wrote it",
            code=EX_DATAERR,
        )
    if document.kind == NETWORKS:
        return str(document.body.get("network")), {"note": document.body.get("note", "")}
    if document.kind in _AS_THEY_ARE:
        return document.name, dict(document.body)
    return document.name, {name: value for name, value in document.body.items() if name != "name"}


def read_declaration(text: str, place: str) -> Declared:
    """Parse the documents that a YAML text declares, by kind. Raises Failure with every problem in it."""
    if len(text) > _MAX_BYTES:
        raise Failure(f"{place} is larger than {_MAX_BYTES} bytes", code=EX_DATAERR)
    try:
        content = yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Failure(f"{place} is not valid YAML: {' '.join(str(error).split())}", code=EX_DATAERR) from None
    if not isinstance(content, dict) or content.get("chips") != FORMAT:
        raise Failure(
            f'{place} is no declaration for a registry: it must begin with "chips: {FORMAT}"',
            hint="`chips export` writes one",
            code=EX_DATAERR,
        )
    problems: list[str] = []
    declared: Declared = {}
    for kind, entries in content.items():
        if kind == "chips":
            continue
        if kind not in SECTIONS:
            problems.append(f"{kind}: there is no such section; use {', '.join(SECTIONS)}")
        elif not isinstance(entries, dict):
            problems.append(f"{kind}: must hold names, each with its content")
        else:
            declared[kind] = {}
            for name, body in entries.items():
                _take(declared[kind], kind, name, body, problems)
    if problems:
        raise Failure(
            "\n".join([f"{place} cannot be used:", *(f"  - {p}" for p in problems)]), code=EX_DATAERR
        )
    return declared


def _take(into: dict[str, dict[str, Any]], kind: str, name: Any, body: Any, problems: list[str]) -> None:
    if not isinstance(name, str) or not isinstance(body, dict):
        problems.append(f"{kind}/{name}: must be a name in quotes, with fields below it")
        return
    try:
        if kind == NETWORKS:
            unknown = body.keys() - {"note"}
            if unknown or not isinstance(body.get("note", ""), str):
                raise ValueError("a network has a note, and nothing else")
            network = str(parse_network(name))
            into[network_document_name(network)] = {"network": network, "note": body.get("note", "")}
            return
        if kind in _AS_THEY_ARE:
            _AS_THEY_ARE[kind](Document(kind=kind, name=name, revision=0, body=body))
            into[name] = body
            return
        if "name" in body and body["name"] != name:
            raise ValueError(f'it says that it is "{body["name"]}"')
        body = {"name": name, **body}
        parse_model(body)
        into[name] = body
    except ValueError as error:
        problems.append(f"{kind}/{name}: {error}")
