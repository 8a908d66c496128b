"""What is written is read back as it was: any name, in every place where a document holds one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.yaml_text import parsed
from services.operator.contract.text import COMMENT_WIDTH, comment_lines, scalar, source_text, star_table_lines
from tests.unit.services.operator.contract.catalogs import HOSTILE

names = st.sampled_from(HOSTILE) | st.text(
    st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=40
)
types = st.sampled_from(
    ["integer not null", "numeric(10,2)", "character varying(3)[]", "enum('a: b', 'no', '#x')", 'public."Rôle"[]']
)


@pytest.mark.parametrize("name", ["customer_id", "größe", "Order Details", "a-b", "x1"])
def test_an_ordinary_name_is_not_quoted(name: str) -> None:
    assert scalar(name) == scalar(name, in_flow=True) == name


@pytest.mark.parametrize(
    "name", ["no", "On", "~", "NULL", "12", "1a", "a: b", "a #b", "#a", "'a'", "-", "a ", "a  b", "x\n", "\u2028"]
)
def test_a_name_that_yaml_would_misread_is_quoted(name: str) -> None:
    assert scalar(name).startswith('"')
    assert parsed(scalar(name))[0] == name


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(names, st.tuples(st.lists(names, min_size=1, max_size=3), st.dictionaries(names, types | names), names)))
def test_a_source_part_is_read_back_as_it_was(found: dict[str, tuple[list[str], dict[str, str], str]]) -> None:
    tables = {
        name: {"key": key, "columns": columns or {"a": "text"}, "foreign_keys": {link: link}}
        for name, (key, columns, link) in found.items()
    }
    assert parsed(source_text({"tables": tables}))[0] == {"source": {"tables": tables}}


@given(
    names, st.dictionaries(names, st.none() | names | st.fixed_dictionaries({"from": names, "references": names})), st.text()
)
@settings(deadline=None)
def test_a_star_table_is_read_back_as_it_was_whatever_the_comment(name: str, columns: dict[str, Any], comment: str) -> None:
    entry = {"fact": name, "version": [name], "columns": columns or {"a": None}}
    text = "\n".join(["star:", *star_table_lines(name, entry, [comment])])
    assert parsed(text)[0] == {"star": {name: entry}}


@given(st.text())
@settings(deadline=None)
def test_a_comment_says_every_printable_word(text: str) -> None:
    lines = list(comment_lines(text, indent=4))
    assert all(line.startswith("    # ") for line in lines)
    assert all(len(line) <= COMMENT_WIDTH or " " not in line[6:] for line in lines)
    said = "".join(line[6:] for line in lines).replace(" ", "")
    assert said == "".join(sign for sign in text if sign.isprintable() and not sign.isspace())
