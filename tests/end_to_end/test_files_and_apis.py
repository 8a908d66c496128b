"""docs/files-and-apis.md, command by command: from an empty folder to a proved table, for files, an API, and the example."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from urllib.parse import unquote
from urllib.request import Request, urlopen

import pytest

from services.operator.local.totesys.rates import serving_rates
from shared.contract_file import contract_text
from tests.end_to_end.conftest import Starlift
from tests.fixtures.command import ROOT
from tests.fixtures.help_desk import SECRET_VARIABLE, HelpDesk, Ticket, serving
from tests.fixtures.limits import HANG_S

PAGE = (ROOT / "docs" / "files-and-apis.md").read_text(encoding="utf-8")
SOMETHING_TO_DO, NOT_LOADED, UNHEALTHY = 3, 4, 5
TICKETS: list[Ticket] = [
    {"id": number, "opened": "2026-01-05", "status": "open", "updated_at": f"2026-01-05T09:00:0{number}Z"}
    for number in range(5)
]


class Walk:
    """A section of the page: the files to save, and the blocks of commands, which a test runs one after another."""

    def __init__(self, title: str, starlift: Starlift, folder: Path) -> None:
        section = re.search(rf"^## \d\. {title}$(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
        assert section is not None
        self.starlift, self.folder, self.environment = starlift, folder, dict[str, str]()
        self.drop_zone = self.psql = ""
        self.blocks = list[list[str]]()
        fences = r"(?:`([\w-]+\.\w+)`:\n\n)?^```(\w*)\n(.*?)^```$"
        for name, language, text in re.findall(fences, section[1], re.MULTILINE | re.DOTALL):
            if name:
                (folder / name).write_text(text)
            elif not language:
                self.blocks.append([line.partition("  #")[0].strip() for line in text.splitlines()])

    def run(self, block: int, **expected: int) -> str:
        """Run a block; return what its commands print. They end with 0 unless `expected` has another code for one."""
        return "".join(self._run(line.split(), expected) for line in self.blocks[block])

    def _run(self, words: list[str], expected: dict[str, int]) -> str:
        match words:
            case ["export" | "unset", *settings]:
                for name, _, value in (setting.partition("=") for setting in settings):
                    given = str(self.folder / value) if name == "STARLIFT_CONTRACT" else value
                    self.environment |= {name: given} if words[0] == "export" else {}
            case ["curl", "-T", name, target]:
                self.put(name, target.removeprefix("$DROPZONE/"))
            case ["read", "-rs", name, *_]:
                assert name in self.environment, f"{name} is not set by the test"
            case ["starlift", command, *options]:
                answer = self.starlift(command, *options, expected=expected.get(command, 0), **self.environment)
                for line in answer.out.splitlines() if command == "up" else ():
                    self.psql = line.removeprefix("The star: ") if line.startswith("The star: ") else self.psql
                    self.drop_zone = line.partition("-T FILE ")[2].removesuffix("DATASET/") or self.drop_zone
                return answer.out
            case _:
                pytest.fail(f"the test knows no command {words}")
        return ""

    def put(self, name: str, folder: str) -> None:
        """What `curl -T` does with a URL that ends with a slash."""
        request = Request(f"{self.drop_zone}{folder}{name}", (self.folder / name).read_bytes(), method="PUT")  # noqa: S310
        with urlopen(request, timeout=HANG_S) as answer:  # noqa: S310 - to the stack on this machine
            assert answer.status == 200

    def edit(self, name: str, before: str, after: str) -> None:
        """Change a saved file as the page says."""
        text = (self.folder / name).read_text()
        assert text.count(before) == 1
        (self.folder / name).write_text(text.replace(before, after))

    def query(self, *options: str) -> list[str]:
        """The lines that the printed psql command prints."""
        words = [*shlex.split(self.psql), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", *options]
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=HANG_S).stdout.splitlines()


def test_files_lead_from_an_empty_folder_to_a_proved_star(starlift: Starlift, tmp_path: Path) -> None:
    walk = Walk("A CSV file that has every row", starlift, tmp_path)
    walk.run(0, plan=SOMETHING_TO_DO)
    assert re.search(r"fact_budget .* amount is not a number .*line 4", " ".join(walk.run(1).split()))
    walk.edit("budget.csv", "8oo.50", "800.50")
    assert "EQUAL as of run" in walk.run(2)
    assert walk.query("-c", "SELECT product_id, product_name, _run FROM dim_product ORDER BY 1") == [
        "1|(unknown)|0",
        "2|(unknown)|0",
    ]
    walk.edit("budget.csv", "1;2026-01-01;1200.00\n", "")
    assert "EQUAL as of run" in walk.run(2)
    current = "SELECT product_id, month, amount FROM fact_budget_current ORDER BY month"
    assert walk.query("-c", current) == ["2|2026-01-01|800.50", "2|2026-02-01|800.50"]

    increments = Walk("JSON lines that bring changes", starlift, tmp_path)
    increments.environment, increments.drop_zone, increments.psql = walk.environment, walk.drop_zone, walk.psql
    assert "EQUAL as of run" in increments.run(0)
    products = "SELECT product_id, product_name, price FROM dim_product WHERE _deleted_at IS NULL ORDER BY 1"
    assert walk.query("-c", products) == ["1|Oak bench|249.00", "2|Steel lamp|34.90"]
    *before_down, _ = increments.blocks[1]
    increments.blocks[1] = before_down
    assert "EQUAL as of run" in increments.run(1)
    assert walk.query("-c", products) == ["2|Steel lamp|34.90"]


def test_an_api_leads_from_an_empty_folder_to_a_proved_star(starlift: Starlift, tmp_path: Path) -> None:
    walk = Walk("An API with pages and a token", starlift, tmp_path)
    with serving(HelpDesk("first", [*TICKETS])) as desk:
        walk.edit("helpdesk.yaml", "https://helpdesk.example.com/v1", desk.url)
        walk.environment |= {"STARLIFT_API_ALLOW": "127.0.0.1", SECRET_VARIABLE: json.dumps({"token": "first"})}
        assert "EQUAL as of run" in walk.run(0)
        assert len(desk.asked) >= 3
        desk.tickets[1] |= {"status": "closed", "updated_at": "2026-01-06T08:00:00Z"}
        starlift("ingest", "--wait")
        status = "SELECT status, count(*) FROM fact_ticket GROUP BY 1 ORDER BY 1"
        assert walk.query("-c", status) == ["closed|1", "open|4"]
        assert "updated_after=2026-01-05T09:00:04Z" in unquote(desk.asked[-1])
        desk.token = "another"  # noqa: S105
        for said in (starlift("ingest", "--wait", expected=NOT_LOADED).err, starlift("files").out):
            assert "correct secret 'helpdesk'" in " ".join(said.split())
        assert "`starlift files` shows why" in " ".join(starlift("status", expected=UNHEALTHY).out.split())
        assert "EQUAL as of run" in starlift("verify").out


def test_the_example_of_exchange_rates_shows_sales_in_pounds(starlift: Starlift, tmp_path: Path) -> None:
    walk = Walk("Exchange rates", starlift, tmp_path)
    with serving_rates() as url:
        own = tmp_path / "exchange_rates.yaml"  # which asks this machine in place of the central bank
        own.write_text(contract_text("exchange_rates").replace("https://data-api.ecb.europa.eu/service", url))
        walk.blocks[0] = [line.replace("--contract exchange_rates", f"--contract {own}") for line in walk.blocks[0]]
        walk.environment["STARLIFT_API_ALLOW"] = "127.0.0.1"
        walk.run(0)
        walk.query("-f", str(ROOT / "contracts" / "sales_in_gbp.sql"))
        (found,) = walk.query(
            "-c", "SELECT sum(sales) >= 11187, sum(sales_without_rate), sum(amount_gbp) > 0 FROM sales_in_gbp"
        )
        assert found == "t|0|t"
