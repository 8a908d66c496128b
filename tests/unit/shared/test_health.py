from __future__ import annotations

from pathlib import Path

from shared import health


def test_health_is_the_age_of_the_last_beat(tmp_path: Path) -> None:
    file = tmp_path / "beat"
    assert health.main([str(file), "60"]) == 1
    health.beat(file, [])
    assert health.main([str(file), "60"]) == 0
    assert health.main([str(file), "-1"]) == 1
