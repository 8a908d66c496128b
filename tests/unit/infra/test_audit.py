from __future__ import annotations

from typing import Any

import pytest

from infra.audit import verdict

SOUND: dict[str, Any] = {"name": "sound", "version": "1.0", "vulns": []}
UNKNOWN: dict[str, Any] = {"name": "unknown", "skip_reason": "not found"}
FLAWED: dict[str, Any] = {
    "name": "flawed",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": []}],
}


def test_a_known_vulnerability_fails_the_audit(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict([SOUND, FLAWED, UNKNOWN]) == 1
    assert "flawed 2.0 has PYSEC-1, mended in: 2.1" in capsys.readouterr().err


def test_an_audit_that_learned_nothing_says_that_it_was_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict([UNKNOWN]) == 0
    assert "PASSED OVER" in capsys.readouterr().out


def test_packages_that_were_not_audited_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict([SOUND, UNKNOWN]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "audit: NOT AUDITED, unknown to the vulnerability service: unknown",
        "audit: no known vulnerability in 1 packages",
    ]
