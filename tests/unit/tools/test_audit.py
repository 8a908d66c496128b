from __future__ import annotations

from pathlib import Path

import pytest

from tools.audit import main


@pytest.mark.parametrize(("options", "code", "word"), [([], 0, "SKIPPED"), (["--required"], 1, "FAILED")])
def test_an_unreachable_audit_service_is_reported_and_fails_only_a_required_audit(
    options: list[str],
    code: int,
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("idna==3.10 --hash=sha256:946d195a0d259cbba61165e88e65941f16e9b36ea6ddb97f00452bae8b1287d3\n")
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path))  # an earlier answer must not be remembered
    monkeypatch.setenv("NO_PROXY", "")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert main([*options, str(lock)]) == code
    assert f"{word}, nothing was audited" in capsys.readouterr().out


def test_a_lock_that_cannot_be_read_fails_the_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "missing.txt")]) == 1
    assert "cannot read" in capsys.readouterr().err
