"""The roles of `starlift grants`: enough for every program and command, and for nothing else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from contracts.proofs import Outcome
from infra.local.databases import execute
from services.loading.migrate import migrate_schema
from services.operator.contract.catalog import read_schemas
from services.operator.contract.plan import make_plan
from services.operator.ingest import resend_missing
from services.operator.proof.history import check_history, keep_baseline
from services.operator.proof.repair import plan_repair
from services.operator.proof.verify import verify_and_keep
from services.operator.quarantine import quarantined
from services.operator.runs import last_runs
from services.operator.status.look import Asking, read_status
from services.operator.terminal.app import starlift
from services.operator.terminal.harness import run_command
from services.operator.trace.reading import read_life
from shared.sql import quoted
from tests.fixtures.limits import HANG
from tests.fixtures.pipeline import Pipeline, open_pipeline
from tests.fixtures.postgres_cluster import TestCluster
from tests.integration.grants_stand import ANOTHER_TABLE, CHANGES, DOCUMENT, SCHEMA, Place, contract
from tests.integration.plain_star import require_equal


@pytest.fixture
def place(postgres_cluster: TestCluster, tmp_path: Path) -> Iterator[Place]:
    found = Place(postgres_cluster, "", "", tmp_path / "shop.yaml", f"g{uuid4().hex[:6]}")
    found.path.write_text(DOCUMENT)
    admin = quoted(found.role("admin"))
    names = [found.role(name) for name in ("reader", "prover", "loader", "analyst", "admin")]
    password = postgres_cluster.password(found.role("admin"))
    execute(postgres_cluster.url(), f"CREATE ROLE {admin} LOGIN CREATEROLE PASSWORD '{password}'")
    databases = [f"test_{uuid4().hex[:12]}" for _ in range(2)]
    for database in databases:
        execute(postgres_cluster.url(), f'CREATE DATABASE "{database}" OWNER {admin}')
    try:
        yield replace(found, source=databases[0], warehouse=databases[1])
    finally:
        for database in databases:
            postgres_cluster.drop_database(database)
        execute(postgres_cluster.url(), *(f"DROP ROLE IF EXISTS {quoted(name)}" for name in names))


async def granted(place: Place, capsys: pytest.CaptureFixture[str], database: str, *roles: str) -> None:
    """Run what `starlift grants` prints, as the administrator, and give each role a password."""
    capsys.readouterr()
    options = [word for role in roles for word in (f"--{role}", place.role(role))]
    assert run_command(starlift(), ["grants", database, "--contract", str(place.path), *options]) == 0
    script, complaint = capsys.readouterr()
    assert complaint == ""
    await place.execute(database, "admin", script)
    for name in map(place.role, roles):
        execute(place.cluster.url(), f"ALTER ROLE {quoted(name)} PASSWORD '{place.cluster.password(name)}'")


@pytest.fixture
async def shop(place: Place, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[dict[str, Pipeline]]:
    """The pipeline of the services, and that of the prover, with the SQL run twice before anything is loaded."""
    await place.execute("source", "admin", SCHEMA)
    is_there = 'CREATE SCHEMA "The Star"'  # the ledger's schema is created by the SQL
    await place.execute("warehouse", "admin", is_there, "GRANT CREATE ON SCHEMA public TO PUBLIC")  # as PostgreSQL 14 does
    for name in (place.source, place.warehouse):
        execute(place.cluster.url(), f"REVOKE CONNECT ON DATABASE {quoted(name)} FROM PUBLIC")
    for _ in range(2):
        await granted(place, capsys, "source", "reader", "prover")
        await granted(place, capsys, "warehouse", "loader", "prover", "analyst")
    async with AsyncExitStack() as stack:
        options: dict[str, Any] = {"contract": contract()}
        serving = await stack.enter_async_context(
            open_pipeline(place.url("source", "reader"), place.url("warehouse", "loader"), **options)
        )
        proving = await stack.enter_async_context(
            open_pipeline(place.url("source", "prover"), place.url("warehouse", "prover"), **options)
        )
        yield {"services": serving, "prover": replace(proving, objects=serving.objects)}


async def test_everything_runs_under_these_roles(shop: dict[str, Pipeline], place: Place) -> None:
    services, prover = shop["services"], shop["prover"]
    await services.run(compare_keys=True)
    await require_equal(prover)
    await place.execute("source", "admin", CHANGES)
    await services.run(compare_keys=True)
    await require_equal(prover)
    await place.execute("source", "reader", "SELECT xmin FROM visit", "SELECT xmin, sale_id FROM sale")
    await services.select("""UPDATE "The Star".dim_customer SET name = 'Eve' WHERE customer_id = 1""")
    assert (await prover.verify()).outcome is Outcome.DIFFERENT


async def test_tables_of_a_later_contract_need_no_further_grants(shop: dict[str, Pipeline], place: Place) -> None:
    await shop["services"].run()
    later = contract(DOCUMENT.replace("source:\n", ANOTHER_TABLE))
    await shop["services"].reading(later).run()
    await require_equal(shop["prover"].reading(later))
    async with place.session("warehouse", "analyst") as analyst:
        for name in (*(table.name for table in later.stored_tables), "fact_late_current", "dim_customer_history"):
            assert await analyst.fetchval(f'SELECT count(*) > 0 FROM "The Star".{name}'), name


async def test_no_role_may_do_more(shop: dict[str, Pipeline], place: Place) -> None:
    await shop["services"].run()
    for role in ("reader", "prover"):
        await place.refuses(
            "source",
            role,
            "SELECT FROM payroll",
            "SELECT password_hash FROM customer",
            "SELECT seen_on FROM visit",
            "SELECT * FROM big_sale",
            "INSERT INTO city VALUES (7, 'York')",
            "UPDATE customer SET name = 'Eve'",
            "DELETE FROM sale",
            "TRUNCATE city",
            "CREATE TABLE mine ()",
            "CREATE SCHEMA mine",
        )
    reading = (
        """INSERT INTO "The Star".dim_shelf (shelf_id, _run) VALUES (7, 1)""",
        """UPDATE "The Star".dim_customer SET name = 'Eve'""",
        """DELETE FROM "The Star".fact_sale""",
        """DROP VIEW "The Star".fact_sale_current""",
        """CREATE TABLE "The Star".mine ()""",
        "CREATE TABLE public.mine ()",
        "CREATE TABLE starlift.mine ()",
        "CREATE TEMPORARY TABLE mine ()",
        "CREATE SCHEMA mine",
        "DELETE FROM starlift.ledger",
    )
    await place.refuses("warehouse", "prover", *reading)
    await place.refuses(
        "warehouse",
        "analyst",
        *reading,
        "SELECT FROM starlift.ledger",
        "SELECT FROM starlift.tombstone",
        f"SET ROLE {quoted(place.role('loader'))}",
    )
    await place.execute("warehouse", "admin", "CREATE SCHEMA other; CREATE TABLE other.payroll ()")
    await place.refuses("warehouse", "loader", "CREATE SCHEMA mine", "CREATE ROLE mine", "SELECT FROM other.payroll")


async def test_a_column_that_leaves_the_contract_can_no_longer_be_read(
    shop: dict[str, Pipeline], place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.path.write_text(
        DOCUMENT.replace("shelf_id: , label: ", "shelf_id: ").replace(", label: text}", "}").replace("carry: [Shelf]\n", "")
    )
    await granted(place, capsys, "source", "reader", "prover")
    await place.execute("source", "reader", 'SELECT xmin, shelf_id FROM "The Floor"."Shelf"')
    await place.refuses("source", "reader", 'SELECT label FROM "The Floor"."Shelf"')
    await shop["services"].reading(contract(place.path.read_text())).run()


async def test_a_star_that_is_loaded_already_is_opened_for_its_readers(
    place: Place, capsys: pytest.CaptureFixture[str], shop: dict[str, Pipeline]
) -> None:
    """Default privileges come too late for its tables; those of others stay closed."""
    await shop["services"].run()
    analyst, prover = quoted(place.role("analyst")), quoted(place.role("prover"))
    for schema in ('"The Star"', "starlift"):
        await place.execute("warehouse", "loader", f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {analyst}, {prover}")
    await place.refuses("warehouse", "analyst", 'SELECT FROM "The Star".dim_shelf')
    create = 'CREATE TABLE "The Star".payroll ()'
    await place.execute("warehouse", "admin", 'GRANT ALL ON SCHEMA "The Star" TO CURRENT_USER', create)
    await granted(place, capsys, "warehouse", "loader", "prover", "analyst")
    await require_equal(shop["prover"])
    await place.execute("warehouse", "analyst", 'SELECT FROM "The Star".dim_shelf')
    await place.refuses("warehouse", "analyst", 'SELECT FROM "The Star".payroll', "SELECT FROM starlift.ledger")


# What each program and command does in the databases, by the lines of the table in docs/deploy.md; they run in this order.
Work = Callable[[Pipeline, Place, list[Any]], Awaitable[None]]


async def reads(pipeline: Pipeline, _place: Place, passed: list[Any]) -> None:
    passed += await pipeline.ingest(compare_keys=True)


async def remodels(pipeline: Pipeline, _place: Place, passed: list[Any]) -> None:
    passed[:] = [await pipeline.remodel(message) for message in passed]


async def loads(pipeline: Pipeline, _place: Place, passed: list[Any]) -> None:
    assert await pipeline.load(*passed) == []
    await migrate_schema(pipeline.warehouse, pipeline.contract)


async def looks(pipeline: Pipeline, _place: Place, _passed: list[Any]) -> None:
    system = pipeline.system
    assert (await check_history(system, ())).is_complete
    await keep_baseline(system)
    proof = await verify_and_keep(system, is_regular=True)
    assert (proof.verdict.outcome, await plan_repair(system, proof.verdict)) == (Outcome.EQUAL, [])
    status = await read_status(system, Asking(HANG))
    assert (status.problems, status.silent) == ((), {})
    assert (await last_runs(system, 5)).runs
    assert (await read_life(system, "dim_customer", ["1"])).rows
    assert (await quarantined(system), await resend_missing(system)) == ([], 0)


async def proposes(pipeline: Pipeline, _place: Place, _passed: list[Any]) -> None:
    assert {"city", "customer", "sale"} <= set((await read_schemas(pipeline.source, ["public"])).tables)


async def plans(pipeline: Pipeline, place: Place, _passed: list[Any]) -> None:
    source, warehouse = SecretStr(place.url("source", "reader")), SecretStr(place.url("warehouse", "loader"))
    assert (await make_plan(pipeline.contract, source, warehouse)).problems == ()


async def asks(pipeline: Pipeline, _place: Place, _passed: list[Any]) -> None:
    assert await pipeline.select('SELECT count(*) FROM "The Star".fact_sale_current') == [(2,)]


WORK: dict[str, Work] = {
    "ingestion": reads,
    "remodelling": remodels,
    "loading": loads,
    "`starlift verify`": looks,
    "`starlift init`": proposes,
    "`starlift plan`": plans,
    "queries and reports": asks,
}


async def test_every_program_and_command_needs_the_roles_of_the_deployment_guide(
    shop: dict[str, Pipeline], place: Place
) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")
    roles = "(?:none|`starlift_([a-z]+)`)"
    lines = re.findall(rf"^\| (.+) \| {roles} \| {roles} \|$", guide, re.MULTILINE)
    assert [line.partition(",")[0] for line, *_ in lines] == list(WORK)
    passed = list[Any]()
    for line, *names in lines:
        urls = [place.url(database, name or "nobody") for database, name in zip(("source", "warehouse"), names, strict=True)]
        async with open_pipeline(*urls, contract=contract(), objects=shop["services"].objects) as pipeline:
            await WORK[line.partition(",")[0]](pipeline, place, passed)
