"""The verdict as one page of HTML that needs nothing else, for readers without a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from contracts.proofs import Outcome
from services.operator.proof.history import HistoryVerdict
from services.operator.proof.verdict import Verdict
from services.operator.wording import clock

DIFFERENCES_NAMED = 1_000  # of one table, or problems of one fact
_COLUMNS = ("table", "expected", "found", "in flight", "stuck", "quarantine", "different", "hash")
_STATES = {Outcome.EQUAL: "equals", Outcome.DIFFERENT: "differs from", Outcome.PENDING: "waits for rows of"}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 3rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.6rem } .equal { color: #14663a } .different { color: #a11 } .pending { color: #8a5a00 }
table { border-collapse: collapse; width: 100% }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } code { overflow-wrap: anywhere } li { margin: .3rem 0 }
"""


def report(verdict: Verdict, source_name: str, history: HistoryVerdict | None = None) -> str:
    """The page: verdict, time, a line for each table, the differences by name; and the history, if it was checked."""
    is_flawed = history is not None and not history.is_complete
    word = (Outcome.DIFFERENT if is_flawed else verdict.outcome).value
    title = f"The warehouse {_STATES[verdict.outcome]} {source_name}"
    if history is not None:
        title += f"{', and' if verdict.is_equal == history.is_complete else ', but'} its history is {_state(history)}"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    names = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n'
        f'<body><h1 class="{word}">{escape(title)}</h1>\n<p>{escape(verdict.sentence)}</p>\n'
        f"<table><tr>{names}</tr>\n{''.join(_lines(verdict))}</table>\n{''.join(_differences(verdict))}"
        f"{''.join(_history(history)) if history else ''}"
        f"<p>Compared by Starlift, source at {clock(verdict.taken_at)}.</p></body></html>\n"
    )


def _lines(verdict: Verdict) -> Iterator[str]:
    for table in verdict.tables:
        numbers = (table.expected, table.actual, table.in_flight, table.stuck, table.quarantined, table.different)
        cells = "".join(f"<td>{number:,}</td>" for number in numbers)
        yield f"<tr><td>{escape(table.table)}</td>{cells}<td><code>{escape(table.digest)}</code></td></tr>\n"


def _differences(verdict: Verdict) -> Iterator[str]:
    for table in verdict.tables:
        if table.different:
            yield f"<h2>{escape(table.table)}</h2>{_list(table.differences, table.different)}\n"


def _history(history: HistoryVerdict) -> Iterator[str]:
    yield f"<h2>History {_state(history)}</h2><p>{escape(history.sentence)}</p>\n"
    for fact in history.facts:
        yield f"<p>{escape(fact.sentence)}</p>\n{_list(fact.problems, fact.flawed)}"


def _state(history: HistoryVerdict) -> str:
    return "complete" if history.is_complete else "flawed"


def _list(named: Sequence[object], count: int) -> str:
    items = [f"<li><code>{escape(str(one))}</code></li>" for one in named[:DIFFERENCES_NAMED]]
    more = count - len(items)
    return (f"<ul>{''.join(items)}</ul>" if items else "") + (f"<p>{more:,} more</p>" if more > 0 else "")
