"""Every later command, in any shell, uses the choices made for a stack."""

from __future__ import annotations

import stat

from infra.local.machine import free_port
from tests.end_to_end.conftest import Starlift, databases_of
from tests.fixtures.command import ROOT
from tests.fixtures.postgres_cluster import TestCluster


def test_port_source_name_and_urls_apply_in_another_shell(starlift: Starlift, postgres_cluster: TestCluster) -> None:
    port = free_port()
    with databases_of(postgres_cluster, orders=20) as own:
        starlift(
            "up",
            "--detach",
            "--contract",
            "contracts/totesys.yaml",
            "--localstack-port",
            str(port),
            STARLIFT_SOURCE_NAME="shop",
            STARLIFT_UP_SOURCE_URL=own.reader,
            STARLIFT_UP_WAREHOUSE_URL=own.warehouse,
        )
        assert starlift.state.chosen["STARLIFT_CONTRACT"] == str(ROOT / "contracts" / "totesys.yaml")
        assert starlift.state.ports["localstack"] == port
        assert stat.S_IMODE((starlift.home / "stack.json").stat().st_mode) == 0o600
        starlift("ingest", "--wait")
        verdict = starlift("verify", "--json").json
        assert verdict["equal"]
        assert verdict["tables"]["fact_sales_order"]["actual"] == 20
        assert own.read("SELECT DISTINCT source_name FROM starlift.ledger") == [{"source_name": "shop"}]
        starlift("down")
        assert own.warehouse not in (starlift.home / "stack.json").read_text()
