from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.conftest import Starlift, wait_until
from tests.fixtures.command import ROOT
from tests.fixtures.limits import HANG_S

# The command, but for a source with fewer rows: to make and load two years of them takes longer than all else here.
WITH_FEW_ROWS = """
from services.operator.local import up
from services.operator.terminal.app import main

up.ORDERS = 300
main()
"""


def test_up_in_the_foreground_reports_events_until_ctrl_c(starlift: Starlift, tmp_path: Path) -> None:
    output = tmp_path / "output"
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes background jobs ignore it
    with output.open("wb") as writer:
        running = subprocess.Popen(
            [sys.executable, "-c", WITH_FEW_ROWS, "up", "--every", "1"],
            env=starlift.environment(),
            stdout=writer,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,
        )
    signal.signal(signal.SIGINT, inherited)
    try:
        wait_until(lambda: output.read_text().count(" loaded ") >= 2)
        assert {"application", "postgres-source", "postgres-warehouse"} < starlift.state.processes.keys()
        everything = starlift.alive
        (star,) = [line.removeprefix("The star: ") for line in output.read_text().splitlines() if line.startswith("The star: ")]
        count = subprocess.run([*shlex.split(star), "-Atc", "SELECT count(*) FROM dim_design"], capture_output=True, check=True)
        assert int(count.stdout) > 0
        nowhere = starlift.environment(STARLIFT_HOME="")
        status = subprocess.run(
            starlift.command("status"), capture_output=True, text=True, check=False, cwd=tmp_path, env=nowhere
        )
        assert f"STARLIFT_HOME={starlift.home}" in status.stderr
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=HANG_S) == 0
    finally:
        running.kill()
        running.wait()
    told = output.read_text()
    assert "rows made\n" in told
    assert "up; a run every 1 s. Ctrl-C or `starlift down` ends it." in told
    assert "reads in full: first run" in told
    assert told.endswith("stopping\n")
    assert "Traceback" not in told
    assert "this is a bug" not in told
    assert len(everything) == 8
    assert starlift.alive == set()
