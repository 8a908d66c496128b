"""docs/tutorial.md, command by command, on a database that is not the shipped one; its choices apply in another shell."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from infra.local.machine import free_port
from tests.end_to_end.conftest import Starlift, databases_of
from tests.fixtures.command import ROOT
from tests.fixtures.postgres_cluster import TestCluster

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
RENTAL_SHOP = (ROOT / "tests" / "fixtures" / "rental_shop.sql").read_text(encoding="utf-8")
SOMETHING_TO_DO = 3


def commands() -> list[list[str]]:
    """The arguments of each command that the tutorial shows on a line of its own."""
    return [line.split()[1:] for line in TUTORIAL.splitlines() if line.startswith("starlift ")]


def test_the_tutorial_leads_from_a_database_to_a_proved_star_and_its_choices_apply_in_another_shell(
    starlift: Starlift, postgres_cluster: TestCluster, tmp_path: Path
) -> None:
    contract, port = tmp_path / "rental.yaml", free_port()
    known = commands()
    assert [command[0] for command in known] == ["init", "plan", "up", "ingest", "verify", "pull"]
    with databases_of(postgres_cluster, orders=0) as databases:
        databases.write(RENTAL_SHOP)
        urls = {"STARLIFT_SOURCE_NAME": "rental", **databases.urls}
        given = os.path.relpath(contract, ROOT)  # where the commands run
        init, plan, up, ingest, verify, pull = ([one.replace("rental.yaml", given) for one in line] for line in known)
        assert "comments say what was left out" in starlift(*init, expected=0, **urls).out
        for line in ("country: address_id.city_id.country_id.country", "dimension: customer"):
            assert line in contract.read_text()
        assert "to create" in starlift(*plan, expected=SOMETHING_TO_DO, **urls).out
        starlift(*up, "--localstack-port", str(port), expected=0, **urls)
        chosen = Path(starlift.state.chosen["STARLIFT_CONTRACT"])
        assert (chosen.is_absolute(), chosen.resolve()) == (True, contract.resolve())
        assert starlift.state.ports["localstack"] == port
        assert stat.S_IMODE((starlift.home / "stack.json").stat().st_mode) == 0o600
        starlift(*ingest)
        assert "EQUAL as of run" in starlift(*verify).out
        databases.write("UPDATE city SET city = 'Leeds' WHERE city_id = 1")
        starlift(*ingest)
        assert "EQUAL as of run" in starlift(*verify).out
        assert databases.read("SELECT count(*) AS customers FROM dim_customer WHERE city = 'Leeds'")[0]["customers"] > 0
        assert databases.read("SELECT DISTINCT source_name FROM starlift.ledger") == [{"source_name": "rental"}]
        assert starlift(*pull, expected=0, **urls).out == ""
        starlift("plan", "--contract", str(contract), expected=0, **urls)
        starlift("down")
        assert databases.warehouse not in (starlift.home / "stack.json").read_text()
