"""The verdict as one page of HTML that needs nothing else, for readers without a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from contracts.proofs import Outcome
from services.operator.proof.history import HistoryVerdict
from services.operator.proof.verdict import Verdict
from services.operator.system import System
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
    word, title = verdict.outcome, f"The warehouse {_STATES[verdict.outcome]} {source_name}"
    state = "complete" if history is None or history.is_complete else "flawed"
    if history is not None:
        word = verdict.outcome if history.is_complete else Outcome.DIFFERENT
        title += f"{', and' if verdict.is_equal == history.is_complete else ', but'} its history is {state}"
    page = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>',
        f'<body><h1 class="{word.value}">{escape(title)}</h1>\n<p>{escape(verdict.sentence)}</p>',
        f"<table><tr>{''.join(f'<th>{name}</th>' for name in _COLUMNS)}</tr>",
    ]
    for found in verdict.tables:
        numbers = (found.expected, found.actual, found.in_flight, found.stuck, found.quarantined, found.different)
        cells = "".join(f"<td>{number:,}</td>" for number in numbers)
        page.append(f"<tr><td>{escape(found.table)}</td>{cells}<td><code>{escape(found.digest)}</code></td></tr>")
    page.append("</table>")
    differing = [found for found in verdict.tables if found.different]
    page += [f"<h2>{escape(found.table)}</h2>{_list(found.differences, found.different)}" for found in differing]
    if history is not None:
        page.append(f"<h2>History {state}</h2><p>{escape(history.sentence)}</p>")
        page += [f"<p>{escape(fact.sentence)}</p>\n{_list(fact.problems, fact.flawed)}" for fact in history.facts]
    page.append(f"<p>Compared by Starlift, source at {clock(verdict.taken_at)}.</p></body></html>\n")
    return "\n".join(page)


async def keep_report(system: System, verdict: Verdict, history: HistoryVerdict | None = None) -> str:
    """Write the page beside the records of proofs, and return its address in S3."""
    store = system.store
    key = store.keys.proof_report(verdict.taken_at)
    await store.objects.put(store.landing_bucket, key, report(verdict, store.source, history).encode())
    return f"s3://{store.landing_bucket}/{key}"


def _list(named: Sequence[object], count: int) -> str:
    items = [f"<li><code>{escape(str(one))}</code></li>" for one in named[:DIFFERENCES_NAMED]]
    more = count - len(items)
    return (f"<ul>{''.join(items)}</ul>" if items else "") + (f"<p>{more:,} more</p>" if more > 0 else "")
