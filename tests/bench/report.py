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

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Measurement:
    """One method of moving `rows` source rows, and what it creates. `peak_rss_bytes` is by process, where it is known."""

    name: str
    makes: str
    rows: int
    seconds: float
    peak_rss_bytes: dict[str, int] = field(default_factory=dict)

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
            "peak_rss_bytes": self.peak_rss_bytes,
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
    table = Table("method", "result", "seconds", "rows/s", "peak memory", title=title, title_justify="left")
    for figures in table.columns[2:]:
        figures.justify = "right"
    for one in measurements:
        memory = "\n".join(f"{process} {peak / MIB:,.0f} MiB" for process, peak in one.peak_rss_bytes.items())
        table.add_row(one.name, one.makes, f"{one.seconds:,.2f}", f"{one.rows_per_second:,.0f}", memory)
    console = Console(highlight=False)
    console.print(table)
    for name, ratio in ratios.items():
        console.print(f"{name}: {ratio:.2f}")
