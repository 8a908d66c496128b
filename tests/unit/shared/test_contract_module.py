from __future__ import annotations

from pathlib import Path

import pytest

from contracts.totesys import CONTRACT
from shared.contract_module import HERE, load_contract


def refusal(name: str) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        load_contract(name)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that modules are imported from."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_contract_is_found_by_its_module() -> None:
    assert load_contract("contracts.totesys") is load_contract(CONTRACT) is CONTRACT


def test_a_missing_module_is_named_with_the_folders_searched(folder: Path) -> None:
    found = refusal("a_shop")
    assert found.startswith("no module 'a_shop' can be imported (looked in ")
    assert str(folder) in found
    assert found.endswith(
        f"; save it as {HERE}/a_shop.py and set STARLIFT_CONTRACT=contracts.a_shop, or add its folder to PYTHONPATH"
    )
    assert refusal("contracts.a_shop").startswith(
        f"no module 'contracts.a_shop' can be imported (looked in {HERE}); save it as"
    )


def test_a_file_path_is_refused_as_a_module_name() -> None:
    assert refusal("my/a_shop.py") == "'my/a_shop.py' is a file; give the name of its module, such as contracts.a_shop"


def test_a_module_without_a_contract_is_named() -> None:
    assert refusal("contracts.tables") == "module 'contracts.tables' has no CONTRACT; assign one, as contracts/totesys.py does"


@pytest.mark.parametrize(
    ("text", "raised"),
    [
        ("import no_such_library", "ModuleNotFoundError while it is imported: No module named 'no_such_library'"),
        ("CONTRACT = 1 / 0", "ZeroDivisionError while it is imported: division by zero"),
        ("CONTRACT =", "SyntaxError while it is imported: invalid syntax"),
        (
            "from contracts.totesys import CONTRACT\nCONTRACT.source_table('a_shop')",
            "ContractError while it is imported: contract 'totesys' has no source table 'a_shop'; correct it",
        ),
    ],
)
def test_a_module_that_fails_is_named_with_its_error(text: str, raised: str, folder: Path) -> None:
    name = f"shop_{abs(hash(text))}"
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    assert f"module '{name}' raises {raised}" in refusal(name)


@pytest.mark.parametrize("name", ["", ".shop", "a..b"])
def test_an_impossible_module_name_is_refused(name: str) -> None:
    assert refusal(name).startswith((f"module '{name}' raises ", f"no module '{name}'"))
