"""Reading a contract's text: YAML without surprises, and the line of whatever is wrong with it.

Plain scalars are null, true, false, whole numbers or texts, as in YAML 1.2: a column called `no` or `on` is a text, and so is a
date. Anchors and tags are refused: they let a short text stand for an endless one, or for an object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import ValidationError

from contracts.contract import Contract
from contracts.document import Document, DocumentError, Problem
from contracts.resolved import resolved
from contracts.tables import ContractError

BYTES_MAXIMUM = 4 * 1024**2  # a thousand tables of fifty columns
_DEPTH_MAXIMUM = 20
_DIGITS_MAXIMUM = 9  # of a whole number; a longer one is a text
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where the wheel has it
_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}


# What pydantic says of Python objects, said of a document; by the type of its error.
_SENTENCES = {
    "extra_forbidden": "there is no such option",
    "missing": "it is missing",
    "model_type": "it must be a mapping of options",
    "string_type": "it must be a text",
}


class ContractTextError(ContractError):
    """A text is not a contract. Recovery: correct every problem; `problems` has them, in the order of their lines."""

    def __init__(self, name: str, problems: Sequence[tuple[int, str]]) -> None:
        self.problems = sorted(problems)
        super().__init__("; ".join(f"{name}:{line}: {text}" for line, text in self.problems))


class _UnreadableError(Exception):
    """A text is not the YAML that a contract may be written in."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def read_contract(text: str, name: str) -> Contract:
    """The contract that a text says; `name` stands for the text in errors. Raises: ContractTextError."""
    data, lines = document_data(text, name)
    try:
        return resolved(Document.model_validate(data))
    except ValidationError as error:
        problems = [
            Problem(_place(data, detail["loc"]), _SENTENCES.get(detail["type"]) or _said(detail["msg"]))
            for detail in error.errors(include_url=False)
        ]
    except DocumentError as error:
        problems = list(error.problems)
    raise ContractTextError(name, [(_line(lines, one.place), _sentence(one)) for one in problems])


def _said(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Input should be", "it must be")


def document_data(text: str, name: str) -> tuple[Any, Mapping[tuple[str, ...], int]]:
    """The plain data of a document, valid or not, and the line of each key. Raises: ContractTextError if it is not YAML."""
    try:
        return parsed(text)
    except _UnreadableError as error:
        raise ContractTextError(name, [(error.line, str(error))]) from None


def parsed(text: str) -> tuple[Any, Mapping[tuple[str, ...], int]]:
    """The plain data of a text, and the line of each key. Raises: _UnreadableError."""
    if len(text.encode()) > BYTES_MAXIMUM:
        raise _UnreadableError(1, f"it has more than {BYTES_MAXIMUM // 1024**2} MiB")
    events = yaml.parse(text, Loader=_LOADER)
    try:
        return _Reading(events).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _UnreadableError(mark.line + 1 if mark else 1, f"it is not YAML: {error.problem}") from None
    except yaml.YAMLError as error:  # a character that YAML forbids
        raise _UnreadableError(1, f"it is not YAML: {' '.join(str(error).split())}") from None


@dataclass(slots=True)
class _Reading:
    """Makes plain data of the events of a parser, which are flat: nothing that is nested without end is ever built."""

    events: Iterator[Any]
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)

    def document(self) -> tuple[Any, Mapping[tuple[str, ...], int]]:
        for event in self.events:
            match event:
                case yaml.StreamStartEvent() | yaml.DocumentStartEvent():
                    continue
                case yaml.StreamEndEvent():
                    return None, self.lines
                case _:
                    value = self._value(event, ())
                    break
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                raise _UnreadableError(_line_of(event), "a contract is one document")
        return value, self.lines

    def _value(self, event: Any, place: tuple[str, ...]) -> Any:
        line = _line_of(event)
        self.lines.setdefault(place, line)
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _UnreadableError(line, "a contract has no anchors; write it twice")
        if event.tag is not None:
            raise _UnreadableError(line, f"a contract has no tags such as {event.tag}")
        if len(place) > _DEPTH_MAXIMUM:
            raise _UnreadableError(line, f"it is nested more than {_DEPTH_MAXIMUM} deep")
        match event:
            case yaml.ScalarEvent():
                return _scalar(event)
            case yaml.SequenceStartEvent():
                return self._sequence(place)
            case _:
                return self._mapping(place)

    def _sequence(self, place: tuple[str, ...]) -> list[Any]:
        found = list[Any]()
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            found.append(self._value(event, (*place, str(len(found)))))
        return found

    def _mapping(self, place: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent):
                raise _UnreadableError(_line_of(key), "a key must be a name")
            if key.value in found:
                raise _UnreadableError(_line_of(key), f"'{key.value}' is given twice")
            self.lines[*place, key.value] = _line_of(key)
            found[key.value] = self._value(next(self.events), (*place, key.value))
        return found


def _line_of(event: Any) -> int:
    line: int = event.start_mark.line + 1
    return line


def _scalar(event: Any) -> str | int | bool | None:
    text: str = event.value
    if event.style:  # quoted, or a block
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAXIMUM else text


def _place(data: Any, location: Sequence[int | str]) -> tuple[str, ...]:
    """The keys of pydantic's location, without what names an alternative of a model."""
    place = list[str]()
    for step in location:
        match data:
            case dict() if step in data:
                data = data[step]
            case list() if isinstance(step, int) and step < len(data):
                data = data[step]
            case _:
                if step == location[-1] and isinstance(data, dict):
                    place.append(str(step))  # what is missing
                continue
        place.append(str(step))
    return tuple(place)


def _line(lines: Mapping[tuple[str, ...], int], place: tuple[str, ...]) -> int:
    """The line of a place, or of the nearest around it."""
    while place not in lines and place:
        place = place[:-1]
    return lines.get(place, 1)


def _sentence(problem: Problem) -> str:
    where = ".".join(step for step in problem.place if step not in {"star", "columns"})
    return f"{where}: {problem.text}" if where else problem.text
