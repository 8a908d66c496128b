from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from infra.local.processes import Child, Services, start, stop, wait_until
from infra.local.stack import Stack
from tests.fixtures.limits import HANG


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def crashing(directory: Path) -> Callable[[str], Child]:
    """Starts programs that end at once, and waits for that."""

    def start_one(name: str) -> Child:
        child = start(["/bin/sh", "-c", "exit 3"], log=directory / f"{name}.log", environment={})
        child.popen.wait()
        return child

    return start_one


def test_a_crashing_service_is_restarted_with_growing_delays(tmp_path: Path) -> None:
    clock = Clock()
    services = Services(crashing(tmp_path), clock)
    services.start(["ingestion"])
    for delay in (1, 2, 4, 8, 16, 30, 30):
        assert services.tend() == [
            f"ingestion ended with 3 and starts again in {delay} s; its log is {tmp_path / 'ingestion.log'}"
        ]
        clock.now += delay - 0.5
        assert services.tend() == []
        clock.now += 0.5
        assert services.tend() == ["ingestion has started again"]


def test_a_service_that_ran_for_a_minute_is_restarted_at_once(tmp_path: Path) -> None:
    clock = Clock()
    services = Services(crashing(tmp_path), clock)
    services.start(["loading"])
    for _ in range(3):
        services.tend()
        clock.now += 100
        services.tend()
    clock.now += 61
    assert "starts again in 1 s" in services.tend()[0]


def test_the_services_run_on_the_stack_and_a_killed_one_is_restarted(tmp_path: Path) -> None:
    events: list[str] = []
    try:
        with Stack(tmp_path) as stack:
            stack.start()
            stack.start_services()
            running = stack.state.processes
            assert {"ingestion", "remodelling", "loading"} <= running.keys()
            stop([running["loading"]], within=timedelta(0), first=signal.SIGKILL)

            def has_come_back() -> bool:
                events.extend(stack.tend())
                return len(events) > 1

            assert wait_until(has_come_back, within=HANG)
            assert events[0].startswith("loading ended with -9 and starts again in 1 s")
            assert events[1] == "loading has started again"
            assert stack.state.processes["loading"] != running["loading"]
            assert stack.state.restarts == {"ingestion": 0, "remodelling": 0, "loading": 1}
            found = Stack.found(tmp_path)
            assert found is not None
            assert found.processes == stack.state.processes
            stack.stop_services()
            assert "ingestion" not in stack.state.processes
            stack.ensure()
    finally:
        Stack.remove(tmp_path)
