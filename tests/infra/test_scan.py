"""What checkov finds in the configuration, and why we differ where we do."""

from __future__ import annotations

import re

from infra.terraform.offline.tools import CHECKOUT, run_tool

CONFIGURATION = CHECKOUT / "infra/terraform"


def test_checkov_finds_nothing_that_has_no_reason() -> None:
    answer = run_tool(
        "checkov", "--directory", CONFIGURATION, "--framework=terraform", "--skip-download", "--compact", "--quiet"
    )
    assert answer.is_success, answer.text
    found = re.search(r"Passed checks: (\d+), Failed checks: (\d+), Skipped checks: (\d+)", answer.text)
    assert found is not None, answer.text
    assert int(found[1]) > 100


def test_every_exception_has_its_reason() -> None:
    exceptions = [
        line for file in CONFIGURATION.rglob("*.tf") for line in file.read_text().splitlines() if "checkov:skip" in line
    ]
    assert exceptions
    for line in exceptions:
        assert re.fullmatch(r"\s+#checkov:skip=CKV2?_AWS_\d+:[A-Z].{30,}", line), line
