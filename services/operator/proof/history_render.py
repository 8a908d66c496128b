"""The history check for people."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from services.operator.proof.history_verdict import FactHistory, HistoryVerdict, Problem
from services.operator.proof.render import DIFFERENCES_SHOWN, more_sentence
from services.operator.render import clock, counted, printable


def show_history(console: Console, verdict: HistoryVerdict) -> None:
    """Fact by fact what was checked and what is wrong, and the verdict in a sentence."""
    for fact in verdict.facts:
        console.print(Text(checked_sentence(fact)), soft_wrap=True)
        for problem in fact.problems[:DIFFERENCES_SHOWN]:
            console.print(Text(f"{fact.table} {describe_problem(problem)}", "red"), soft_wrap=True)
        if fact.flawed > DIFFERENCES_SHOWN:
            console.print(f"[red]{fact.table}: {more_sentence(fact.flawed - DIFFERENCES_SHOWN)}[/]", soft_wrap=True)
    word = "[bold green]HISTORY COMPLETE[/]" if verdict.is_complete else "[bold red]HISTORY FLAWED[/]"
    console.print(f"{word}: {verdict_sentence(verdict)}", highlight=False, soft_wrap=True)


def checked_sentence(fact: FactHistory) -> str:
    """What was looked up, and what can't be any more."""
    looked_up = f"{counted(fact.versions, 'version', 'versions')} of {counted(fact.batches, 'batch', 'batches')}"
    sentence = f"{fact.table} history: {looked_up} looked up in {counted(fact.rows, 'row', 'rows')}"
    if fact.unread_until is None:
        return sentence
    gone = counted(fact.unread, "batch", "batches")
    return f"{sentence}; the objects of {gone} are gone (the last was loaded {fact.unread_until:%Y-%m-%d %H:%M:%S} UTC)"


def describe_problem(problem: Problem) -> str:
    """A problem in words: which version, what is wrong with it, and how that shows."""
    name = f"{', '.join(map(printable, problem.key))} of {' '.join(map(printable, problem.version))} is {problem.flaw}"
    return f"{name} ({problem.detail})" if problem.detail else name


def verdict_sentence(verdict: HistoryVerdict) -> str:
    """The verdict in one sentence, without its first words."""
    versions = counted(sum(fact.versions for fact in verdict.facts), "loaded version", "loaded versions")
    begun = f" since it was started over at {clock(verdict.begun_at)}" if verdict.begun_at else ""
    if verdict.is_complete:
        return f"{versions}{begun}, each there once, the newest current."
    return f"{counted(sum(fact.flawed for fact in verdict.facts), 'problem', 'problems')}, {versions}{begun} looked up."
