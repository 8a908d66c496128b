"""The report of a benchmark: a table for people, one JSON document for scripts."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.usage import Usage

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Measurement:
    """One method of moving `rows` source rows, what it creates, and what it used, where that was measured."""

    name: str
    makes: str
    rows: int
    seconds: float
    usage: Usage = field(default_factory=Usage)

    @property
    def rows_per_second(self) -> float:
        """Source rows a second, so that methods that create different rows can be compared."""
        return self.rows / self.seconds

    def as_json(self) -> dict[str, Any]:
        """The figures for scripts; each name contains its unit."""
        return {
            "name": self.name,
            "makes": self.makes,
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(self.rows_per_second),
            "cpu_seconds": self.usage.cpu_seconds,
            "peak_rss_bytes": self.usage.peak_rss_bytes,
            "requests": self.usage.requests,
        }


def speed_ratio(one: Measurement, other: Measurement) -> float:
    """Speed of `one` divided by that of `other`, in the same run on the same machine."""
    return one.rows_per_second / other.rows_per_second


def machine(postgresql: str, *, load_average: float) -> dict[str, Any]:
    """The machine that the figures depend on; `load_average` is that of the minute before."""
    return {
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "postgresql": postgresql,
        "load_average": round(load_average, 2),
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def show(title: str, measurements: Sequence[Measurement], ratios: dict[str, float]) -> None:
    """Print the figures for a person."""
    table = Table("method", "result", "seconds", "rows/s", "peak memory, MiB", title=title, title_justify="left")
    for figures in table.columns[2:]:
        figures.justify = "right"
    for one in measurements:
        memory = " + ".join(f"{peak / MIB:,.0f}" for peak in one.usage.peak_rss_bytes.values())
        table.add_row(one.name, one.makes, f"{one.seconds:,.2f}", f"{one.rows_per_second:,.0f}", memory)
    console = Console(highlight=False)
    console.print(table)
    metered = [one for one in measurements if one.usage.cpu_seconds]
    if groups := list(dict.fromkeys(name for one in metered for name in one.usage.cpu_seconds)):
        used = Table("CPU-seconds", *(one.name for one in metered))
        for group in groups:
            seconds = (one.usage.cpu_seconds.get(group) for one in metered)
            used.add_row(group, *("" if one is None else f"{one:,.2f}" for one in seconds))
        used.add_row("together", *(f"{one.usage.cpu_total:,.2f}" for one in metered))
        console.print(used)
    for name, ratio in ratios.items():
        console.print(f"{name}: {ratio:.2f}")
