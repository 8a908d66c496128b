"""Draw first loads as bars: the seconds of each method, and its CPU-seconds by group of processes.

python -m tests.bench.plot docs/first-load.svg REPORT.json...        (reports of tests.bench.first_load, a panel each)
"""

from __future__ import annotations

import argparse
import json
from html import escape
from pathlib import Path
from typing import Any

COLOURS = {
    "source server": "#4e79a7",
    "warehouse server": "#a0cbe8",
    "LocalStack": "#bab0ac",
    "client": "#f28e2b",
    "ingestion": "#59a14f",
    "remodelling": "#8cd17d",
    "loading": "#b6992d",
    "operator": "#e15759",
}
WALL = "#333"
WIDTH, LEFT, BAR, ROW, HEAD = 860, 130, 560, 46, 34


def drawn(reports: list[dict[str, Any]]) -> str:
    """The whole drawing as SVG: a panel for each report, its bars on a scale of their own."""
    panels, top = [], HEAD
    for report in reports:
        methods = [report["limit"], *report["peers"], report["starlift"]]
        panels.append(_panel(f"{report['orders']:,} orders, {report['limit']['rows']:,} rows", methods, top))
        top += HEAD + ROW * len(methods)
    legend, x = "", 10
    for name, colour in {"seconds": WALL, **COLOURS}.items():
        legend += f'<rect x="{x}" y="8" width="10" height="10" fill="{colour}"/><text x="{x + 14}" y="17">{name}</text>'
        x += 30 + 6 * len(name)
    style = "text { font: 11px sans-serif; fill: #333 } .title { font-weight: bold }"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{legend}{"".join(panels)}</svg>\n'
    )


def _panel(title: str, methods: list[dict[str, Any]], top: int) -> str:
    longest = max(max(one["seconds"], sum(one["cpu_seconds"].values())) for one in methods)
    parts = [f'<text class="title" x="10" y="{top + 18}">{title}</text>']
    for place, one in enumerate(methods):
        y, x = top + HEAD + ROW * place, float(LEFT)
        parts.append(f'<text x="10" y="{y + 12}">{escape(one["name"])}</text>')
        wall = BAR * one["seconds"] / longest
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{wall:.1f}" height="14" fill="{WALL}"/>')
        parts.append(f'<text x="{LEFT + wall + 6:.1f}" y="{y + 12}">{one["seconds"]:.1f} s</text>')
        for group, seconds in one["cpu_seconds"].items():
            width = BAR * seconds / longest
            parts.append(f'<rect x="{x:.1f}" y="{y + 16}" width="{width:.1f}" height="14" fill="{COLOURS[group]}"/>')
            x += width
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 28}">{sum(one["cpu_seconds"].values()):.1f} CPU-s</text>')
    return "".join(parts)


def main() -> None:
    """Read reports, write the drawing."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plot", description=__doc__.partition("\n")[0])
    parser.add_argument("drawing", type=Path, help="the SVG to write")
    parser.add_argument("reports", type=Path, nargs="+", help="what `--json` of tests.bench.first_load wrote")
    arguments = parser.parse_args()
    arguments.drawing.write_text(drawn([json.loads(report.read_text()) for report in arguments.reports]))


if __name__ == "__main__":
    main()
