"""A contract of one data set, proposed from a sample of its records. Pure."""

from __future__ import annotations

from contracts.column_types import DATE
from contracts.datasets import DROP_ZONE
from contracts.source_document import NOT_NULL
from contracts.type_names import type_name
from contracts.yaml_text import read_contract
from services.operator.contract.draft import CALENDAR, Draft, TableDraft, path_of
from services.operator.contract.roles import is_secret
from services.operator.contract.sample import Sample

_CONFIDENTIAL = "the name says that it may hold a secret; it is not read"


def propose_file(sample: Sample, name: str) -> str:
    """The text of a contract called `name`, which is consistent.

    That the sample has a value in each record promises nothing of later ones: only the key is NOT NULL.
    """
    found = sample.key()
    key = found or tuple(sample.types)[:1]
    columns = {column: type_name(kind) + (NOT_NULL if column in key else "") for column, kind in sample.types.items()}
    entry = {"file": {**sample.form, "contents": "snapshot"}, "key": list(key), "columns": columns}
    table = _star_table(sample, key)
    count = f"{len(sample.records):,}"
    remarks = [
        f"Proposed by `starlift init`: types, key and kind of table are guessed from the first {count} records. Correct them.",
        f"Put each file under {DROP_ZONE}{sample.name}/: it replaces all rows, unless you write `contents: increment`.",
    ]
    if not found:
        remarks.append(f"No columns tell the records apart: several have the same {key[0]}. Correct `key`.")
    prefix = "dim" if table.kind == "dimension" else "fact"
    draft = Draft(name, "public", {f"{prefix}_{sample.name}": table}, {sample.name: entry}, remarks)
    draft.settle()
    text = draft.text()
    read_contract(text, name)
    return text


def _star_table(sample: Sample, key: tuple[str, ...]) -> TableDraft:
    """A dimension, if other tables could refer to it: by a key of one column that is not a date."""
    is_fact = len(key) > 1 or sample.types[key[0]] == DATE
    table = TableDraft("fact" if is_fact else "dimension", sample.name, [])
    for name, kind in sample.types.items():
        if is_secret(name) and name not in key:
            table.left_out[_CONFIDENTIAL].append(name)
        else:
            refers = {"references": CALENDAR} if is_fact and kind == DATE else {}
            table.add(name, {"from": path_of(name)} | refers)
    return table
