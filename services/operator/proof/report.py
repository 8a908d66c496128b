"""The verdict as one page of HTML that needs nothing else, for whoever reads no terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from services.operator.proof.comparison import TableVerdict
from services.operator.proof.history_render import checked_sentence, describe_problem, verdict_sentence
from services.operator.proof.history_verdict import HistoryVerdict
from services.operator.proof.render import DIFFERENCES_IN_REPORT, describe, verdict_words
from services.operator.proof.verdict import Outcome, Verdict
from services.operator.render import clock

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 3rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.6rem } .equal { color: #14663a } .different { color: #a11 } .pending { color: #8a5a00 }
table { border-collapse: collapse; width: 100% }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } code { overflow-wrap: anywhere } li { margin: .3rem 0 }
"""

_STATES = {
    Outcome.EQUAL: "equals",
    Outcome.DIFFERENT: "differs from",
    Outcome.PENDING: "waits for rows of",
}


def report(verdict: Verdict, source_name: str, past: HistoryVerdict | None = None) -> str:
    """The page: verdict, time, a line for each table, the differences by name; and the history, if it was checked."""
    is_flawed = past is not None and not past.is_complete
    word = (Outcome.DIFFERENT if is_flawed else verdict.outcome).value
    title = f"The warehouse {_STATES[verdict.outcome]} {source_name}"
    if past is not None:
        title += f"{', and' if verdict.is_equal == past.is_complete else ', but'} its history is {_state(past)}"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    names = "".join(
        f"<th>{name}</th>" for name in ("table", "expected", "found", "in flight", "stuck", "quarantine", "different", "hash")
    )
    lines = "\n".join(_line(table) for table in verdict.tables)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n'
        f'<body><h1 class="{word}">{escape(title)}</h1>\n<p>{escape(verdict_words(verdict))}</p>\n'
        f"<table><tr>{names}</tr>\n{lines}\n</table>\n{''.join(_differences(verdict))}"
        f"{''.join(_history(past)) if past else ''}"
        f"<p>Compared by Starlift, source at {clock(verdict.taken_at)}.</p></body></html>\n"
    )


def _line(table: TableVerdict) -> str:
    numbers = (table.expected, table.actual, table.in_flight, table.stuck, table.quarantined, table.different)
    cells = "".join(f"<td>{number:,}</td>" for number in numbers)
    return f"<tr><td>{escape(table.table)}</td>{cells}<td><code>{escape(table.digest)}</code></td></tr>"


def _state(past: HistoryVerdict) -> str:
    return "complete" if past.is_complete else "flawed"


def _history(past: HistoryVerdict) -> Iterator[str]:
    yield f"<h2>History {_state(past)}</h2><p>{escape(verdict_sentence(past))}</p>\n"
    for fact in past.facts:
        yield f"<p>{escape(checked_sentence(fact))}</p>\n"
        named = [describe_problem(problem) for problem in fact.problems[:DIFFERENCES_IN_REPORT]]
        yield _list(named, fact.flawed - len(named))


def _differences(verdict: Verdict) -> Iterator[str]:
    for table in verdict.tables:
        if not table.different:
            continue
        named = [describe(difference) for difference in table.differences[:DIFFERENCES_IN_REPORT]]
        yield f"<h2>{escape(table.table)}</h2>{_list(named, table.different - len(named))}\n"


def _list(named: Sequence[str], more: int) -> str:
    items = "".join(f"<li><code>{escape(name)}</code></li>" for name in named)
    return (f"<ul>{items}</ul>" if named else "") + (f"<p>{more:,} more</p>" if more > 0 else "")
