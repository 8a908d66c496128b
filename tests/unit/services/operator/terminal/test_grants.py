"""What `starlift grants` prints and refuses. Real servers run its SQL in tests/integration/test_grants.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.operator.terminal import grants
from services.operator.terminal.app import starlift
from services.operator.terminal.harness import run_command
from tests.fixtures.delivered_contract import TEXT as DELIVERED
from tests.fixtures.several_sources import SEVERAL


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run_command(starlift(), ["grants", *words]) == 0
    return capsys.readouterr().out


def test_the_sql_is_one_transaction_without_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    for database in ("source", "warehouse"):
        script = printed(capsys, database)
        lines = [line for line in script.splitlines() if not line.startswith("--")]
        assert (lines[0], lines[-1]) == ("BEGIN;", "COMMIT;")
        assert "PASSWORD" not in script
        assert "\\password ROLE" in script


def test_only_the_columns_of_the_contract_are_granted(capsys: pytest.CaptureFixture[str]) -> None:
    script = printed(capsys, "source", "--reader", "r", "--prover", "p")
    assert 'GRANT SELECT (xmin, "currency_id", "currency_code") ON "public"."currency" TO "r", "p";' in script
    assert "SELECT ON" not in script


def test_a_name_ends_no_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    script = printed(capsys, "warehouse", "--loader", 'l" $$; DROP TABLE x; $_$')
    assert "DO $__$ BEGIN IF" in script
    assert 'CREATE ROLE "l"" $$; DROP TABLE x; $_$" LOGIN;' in script


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["source", "--reader", "me", "--prover", "me"], "each role needs a name of its own, not 'me, me'"),
        (["source", "--reader", ""], "'' is not the name of a role: it must have 1 to 63 bytes"),
        (["warehouse", "--analyst", "ü" * 32], f"'{'ü' * 32}' is not the name of a role: it must have 1 to 63 bytes"),
        (["source", "--contract", "nowhere"], "nowhere"),
    ],
)
def test_what_can_not_be_meant_is_refused(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(starlift(), ["grants", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_of_several_sources_one_is_chosen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(grants, "chosen_contract", lambda _name: SEVERAL)
    script = printed(capsys, "source", "--source", "regions")
    assert ('"region"' in script, '"item"' in script) == (True, False)
    assert run_command(starlift(), ["grants", "source"]) == 2
    assert "has several sources (shop, plans, regions); pass --source" in capsys.readouterr().err
    assert run_command(starlift(), ["grants", "source", "--source", "x"]) == 2
    assert "has no source 'x'" in capsys.readouterr().err
    printed(capsys, "warehouse")


def test_there_are_no_grants_for_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "delivered.yaml"
    file.write_text(DELIVERED)
    monkeypatch.setenv("STARLIFT_CONTRACT", str(file))
    assert run_command(starlift(), ["grants", "source", "--source", "plans"]) == 2
    assert "of the landing bucket: there is no database to grant rights in" in capsys.readouterr().err
