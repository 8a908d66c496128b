from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.paths import quoted_step, steps_of


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4))
@settings(deadline=None)
def test_every_name_can_be_a_step(names: list[str]) -> None:
    assert steps_of(".".join(quoted_step(name) for name in names)) == names


def test_a_plain_name_is_written_as_it_is() -> None:
    assert (quoted_step("full name"), quoted_step("a.b"), quoted_step('a"b')) == ("full name", '"a.b"', '"a""b"')


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", '"a"b', '"a', 'a"b"'])
def test_what_is_not_names_joined_by_dots_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is not a path: names, joined by dots"):
        steps_of(path)
