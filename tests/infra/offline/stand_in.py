"""A stand-in for the AWS provider that knows its schema and nothing else: it calls no API and needs no network.

    python -m tests.infra.offline.stand_in          (in the environment of infra/locks/infra.txt)

Terraform's own core talks to it over the plugin protocol, so every reference, type, argument name and nested block is judged
by Terraform itself. A plan leaves computed values unknown, an apply invents them. What only AWS knows stays unchecked:
enumerations, ranges, arguments that exclude each other, and whether AWS would accept a value.

It prints what Terraform wants in TF_REATTACH_PROVIDERS and serves until its standard input ends: it never outlives its starter.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from tf.gen import tfplugin_pb2 as pb
from tf.gen import tfplugin_pb2_grpc as rpc
from tf.types import Unknown
from tf.utils import read_dynamic_value, to_dynamic_value

from tests.infra.offline.invention import Inventor

SCHEMA = Path(__file__).with_name("aws-schema.json")
PROVIDER = "hashicorp/aws"
_NESTING = {"single": 1, "list": 2, "set": 3, "map": 4}
_JSON_ARGUMENTS = (
    "assume_role_policy",
    "container_definitions",
    "dashboard_body",
    "policy",
    "redrive_allow_policy",
    "redrive_policy",
)

Document = dict[str, Any]


class StandIn(rpc.ProviderServicer):  # type: ignore[misc]  # generated, without types
    """Answers as the provider does, out of `document`, the provider's schema."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._inventor = Inventor()

    @functools.cached_property
    def _schema(self) -> Any:
        return pb.GetProviderSchema.Response(
            provider=pb.Schema(block=_block(self._document["provider"]["block"])),
            provider_meta=pb.Schema(block=pb.Schema.Block()),
            resource_schemas=_schemas(self._document["resource_schemas"]),
            data_source_schemas=_schemas(self._document["data_source_schemas"]),
            server_capabilities=pb.ServerCapabilities(plan_destroy=False),
        )

    # What the protocol's methods are called: https://developer.hashicorp.com/terraform/plugin/terraform-plugin-protocol

    def GetProviderSchema(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return self._schema

    def ValidateProviderConfig(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return pb.ValidateProviderConfig.Response()

    def ConfigureProvider(self, request: Any, _context: Any) -> Any:  # noqa: N802
        self._inventor = Inventor(region=read_dynamic_value(request.config)["region"])
        return pb.ConfigureProvider.Response()

    def ValidateDataResourceConfig(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return pb.ValidateDataResourceConfig.Response()

    def GetFunctions(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return pb.GetFunctions.Response()

    def StopProvider(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        return pb.StopProvider.Response()

    def ValidateResourceConfig(self, request: Any, _context: Any) -> Any:  # noqa: N802
        given = read_dynamic_value(request.config) or {}
        complaints = [_not_json(name, error) for name in _JSON_ARGUMENTS if (error := _json_error(given.get(name))) is not None]
        return pb.ValidateResourceConfig.Response(diagnostics=complaints)

    def UpgradeResourceState(self, request: Any, _context: Any) -> Any:  # noqa: N802
        return pb.UpgradeResourceState.Response(upgraded_state=to_dynamic_value(json.loads(request.raw_state.json)))

    def ReadResource(self, request: Any, _context: Any) -> Any:  # noqa: N802
        return pb.ReadResource.Response(new_state=request.current_state)

    def PlanResourceChange(self, request: Any, _context: Any) -> Any:  # noqa: N802
        planned, prior = read_dynamic_value(request.proposed_new_state), read_dynamic_value(request.prior_state)
        if planned is not None:
            for name, attribute in self._attributes("resource_schemas", request.type_name).items():
                if attribute.get("computed") and planned.get(name) is None:
                    planned[name] = prior.get(name) if prior else Unknown
        return pb.PlanResourceChange.Response(planned_state=to_dynamic_value(planned))

    def ApplyResourceChange(self, request: Any, _context: Any) -> Any:  # noqa: N802
        made = read_dynamic_value(request.planned_state)
        if made is not None:
            attributes = self._attributes("resource_schemas", request.type_name)
            made |= {
                name: self._inventor.value(request.type_name, name, attributes[name]["type"], made)
                for name, value in made.items()
                if value is Unknown
            }
        return pb.ApplyResourceChange.Response(new_state=to_dynamic_value(made))

    def ReadDataSource(self, request: Any, _context: Any) -> Any:  # noqa: N802
        found = read_dynamic_value(request.config)
        for name, attribute in self._attributes("data_source_schemas", request.type_name).items():
            if attribute.get("computed") and found.get(name) is None:
                found[name] = self._inventor.value(request.type_name, name, attribute["type"], found)
        return pb.ReadDataSource.Response(state=to_dynamic_value(found))

    def _attributes(self, kind: str, type_name: str) -> Document:
        attributes: Document = self._document[kind][type_name]["block"]["attributes"]
        return attributes


def _schemas(documents: Document) -> Document:
    return {
        name: pb.Schema(version=schema.get("version", 0), block=_block(schema["block"])) for name, schema in documents.items()
    }


def _block(block: Document) -> Any:
    return pb.Schema.Block(
        attributes=[
            pb.Schema.Attribute(
                name=name,
                type=json.dumps(attribute["type"]).replace('"dynamic"', '"string"').encode(),
                optional=attribute.get("optional", False),
                required=attribute.get("required", False),
                computed=attribute.get("computed", False),
            )
            for name, attribute in sorted(block["attributes"].items())
        ],
        block_types=[
            pb.Schema.NestedBlock(
                type_name=name,
                block=_block(nested["block"]),
                nesting=_NESTING[nested["nesting_mode"]],
                min_items=nested.get("min_items", 0),
                max_items=nested.get("max_items", 0),
            )
            for name, nested in sorted(block["block_types"].items())
        ],
    )


def _json_error(value: object) -> str | None:
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError as error:
            return str(error)
    return None


def _not_json(name: str, error: str) -> Any:
    return pb.Diagnostic(
        severity=pb.Diagnostic.ERROR,
        summary=f"{name} is not valid JSON",
        detail=error,
        attribute=pb.AttributePath(steps=[pb.AttributePath.Step(attribute_name=name)]),
    )


def main() -> int:
    """Serve on a free port of this machine until standard input ends."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    rpc.add_ProviderServicer_to_server(StandIn(json.loads(SCHEMA.read_text(encoding="utf-8"))), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    address = {"Network": "tcp", "String": f"127.0.0.1:{port}"}
    reattach = {"Protocol": "grpc", "ProtocolVersion": 6, "Pid": os.getpid(), "Test": True, "Addr": address}
    print(json.dumps({PROVIDER: reattach}), flush=True)
    sys.stdin.read()
    server.stop(grace=None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
