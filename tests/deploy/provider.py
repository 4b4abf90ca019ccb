"""A stand-in for the provider hashicorp/google: it serves the real provider's argument schema to the real terraform.

Terraform then checks types, required and unknown arguments, references, modules and conditions as it does with the real
one, and plans; what only Google computes is unknown in the plan. It makes nothing. Rules about values (enumerations,
arguments that exclude each other) are the provider's own code and are not in a schema: `enums.py` covers the first kind.
"""

import gzip
import json
import os
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any, Final

import grpc
import msgpack

HERE: Final = Path(__file__).parent
SCHEMA: Final = HERE / "google-schema.json.gz"  # made by extract_schema.py

Block = dict[str, Any]
_UNKNOWN: Final = msgpack.ExtType(0, b"\x00")
_TIMEOUTS: Final = "timeouts"


def read_schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(gzip.decompress(SCHEMA.read_bytes()))
    return schema


class Provider:
    """Serve on a port of this machine until `stop`; `environ` is what makes terraform use it."""

    def __init__(self) -> None:
        # Compiled here, so that no generated code lies in the repository.
        self._messages: Any = grpc.protos("tests/deploy/tfplugin5.proto")
        self._schema = read_schema()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(4),
            options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)],
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("tfplugin5.Provider", self._methods()),)
        )
        self._port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def environ(self) -> dict[str, str]:
        attach = {
            "Protocol": "grpc",
            "ProtocolVersion": 5,
            "Pid": os.getpid(),
            "Test": True,
            "Addr": {"Network": "tcp", "String": f"127.0.0.1:{self._port}"},
        }
        # The name that `source = "hashicorp/google"` is short for.
        return {"TF_REATTACH_PROVIDERS": json.dumps({"registry.terraform.io/hashicorp/google": attach})}

    def stop(self) -> None:
        self._server.stop(None).wait()

    def _methods(self) -> dict[str, Any]:
        answers: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
            "GetSchema": ("GetProviderSchema", self._get_schema),
            "PrepareProviderConfig": ("PrepareProviderConfig", self._prepare),
            "ValidateResourceTypeConfig": ("ValidateResourceTypeConfig", self._empty),
            "ValidateDataSourceConfig": ("ValidateDataSourceConfig", self._empty),
            "Configure": ("Configure", self._empty),
            "UpgradeResourceState": ("UpgradeResourceState", self._upgrade),
            "ReadResource": ("ReadResource", self._read),
            "PlanResourceChange": ("PlanResourceChange", self._plan),
            "Stop": ("Stop", self._empty),
        }
        methods = {}
        for name, (message, answer) in answers.items():
            kind = getattr(self._messages, message)
            methods[name] = grpc.unary_unary_rpc_method_handler(
                lambda request, _, answer=answer, kind=kind: answer(request, kind.Response),
                request_deserializer=kind.Request.FromString,
                response_serializer=kind.Response.SerializeToString,
            )
        return methods

    def _get_schema(self, _: Any, response: Any) -> Any:
        answer = response(provider=self._described(self._schema["config"]))
        for kind, described in (("resource", answer.resource_schemas), ("data", answer.data_source_schemas)):
            for name, block in self._schema[kind].items():
                described[name].CopyFrom(self._described(block))
        return answer

    @staticmethod
    def _empty(_: Any, response: Any) -> Any:
        return response()

    @staticmethod
    def _prepare(request: Any, response: Any) -> Any:
        return response(prepared_config=request.config)

    def _upgrade(self, request: Any, response: Any) -> Any:
        return response(upgraded_state=self._messages.DynamicValue(json=request.raw_state.json))

    @staticmethod
    def _read(request: Any, response: Any) -> Any:
        return response(new_state=request.current_state)

    def _plan(self, request: Any, response: Any) -> Any:
        proposed = _load(request.proposed_new_state)
        if proposed is None:  # a deletion
            return response(planned_state=request.proposed_new_state)
        if _load(request.prior_state) is None:
            for name, (_, flag) in self._schema["resource"][request.type_name]["a"].items():
                if flag in {"c", "oc"} and proposed.get(name) is None:
                    proposed[name] = _UNKNOWN
        planned = self._messages.DynamicValue(msgpack=msgpack.packb(proposed, use_bin_type=False))
        return response(planned_state=planned, legacy_type_system=True)

    def _described(self, block: Block) -> Any:
        return self._messages.Schema(version=0, block=self._block(block))

    def _block(self, block: Block) -> Any:
        schema = self._messages.Schema
        described = schema.Block()
        for name, (kind, flag) in sorted(block["a"].items()):
            described.attributes.add(
                name=name,
                type=json.dumps(kind).encode(),
                required=flag == "r",
                optional="o" in flag,
                computed=flag in {"c", "oc"},
            )
        for name, (nesting, inner, least) in sorted(block["b"].items()):
            is_timeouts = name == _TIMEOUTS
            described.block_types.add(
                type_name=name,
                nesting=schema.NestedBlock.SINGLE if is_timeouts else schema.NestedBlock.LIST,
                min_items=0 if is_timeouts else least,
                max_items=1 if nesting == "single" and not is_timeouts else 0,
                block=self._block(inner),
            )
        return described


def _load(value: Any) -> Any:
    if value.msgpack:
        return msgpack.unpackb(value.msgpack, ext_hook=lambda *_: _UNKNOWN, raw=False, strict_map_key=False)
    return json.loads(value.json or b"null")
