"""The findings of checkov, and the reason for each exception."""

from __future__ import annotations

import re

from tests.infra import checks
from tests.infra.offline.tools import CHECKOUT

CONFIGURATION = CHECKOUT / "infra/terraform"


def test_every_finding_of_checkov_has_a_reason() -> None:
    assert not checks.checkov(CHECKOUT)


def test_every_exception_has_a_reason() -> None:
    exceptions = [
        line for file in CONFIGURATION.rglob("*.tf") for line in file.read_text().splitlines() if "checkov:skip" in line
    ]
    assert exceptions
    for line in exceptions:
        assert re.fullmatch(r"\s+#checkov:skip=CKV2?_AWS_\d+:[A-Z].{30,}", line), line
