from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import jsonschema  # type: ignore[import-untyped]
import pytest
from pydantic import Field

from contracts.failure import FailureRecord, fingerprint_of, normalised, read_failure
from contracts.messages import KNOWN_TYPES, IngestSource, IngestSourceData, decode, encode
from contracts.routes import ROUTES
from contracts.upcasts import UPCASTS
from contracts.yaml_text import parsed
from shared.contract_file import contract_text
from tools import schemas
from tools.asyncapi import FAILURE_RECORD_TYPE
from tools.schemas import (
    ASYNCAPI,
    CONTRACT,
    DIALECT,
    DIRECTORY,
    ReleasedSchemaError,
    contract_schema,
    current_asyncapi,
    main,
    require_unchanged,
    write_schemas,
)

EXAMPLES = Path(__file__).parents[1] / "contracts" / "messages"
FORMER_RECORDS = ("starlift.failure_record.v1",)
TYPES = sorted({*KNOWN_TYPES, *UPCASTS, FAILURE_RECORD_TYPE, *FORMER_RECORDS})


def golden(kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((DIRECTORY / f"{kind}.json").read_text(encoding="utf-8"))
    return schema


def example(kind: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((EXAMPLES / f"{kind}.json").read_text(encoding="utf-8"))
    return document


def problems(kind: str, document: dict[str, Any]) -> list[str]:
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    validator = jsonschema.Draft202012Validator(golden(kind), format_checker=checker)
    return [error.message for error in validator.iter_errors(document)]


class _ChangedData(IngestSourceData):
    """A released model with an added field."""

    priority: Annotated[int, Field(ge=0)] = 0


class _ChangedCommand(IngestSource):
    data: _ChangedData


def test_the_schema_of_contracts_is_that_of_this_build_and_accepts_the_shipped_one() -> None:
    schema = json.loads(contract_schema())
    assert (DIRECTORY / CONTRACT).read_text(encoding="utf-8") == contract_schema(), "run `make schemas`"
    document, _ = parsed(contract_text("totesys"))
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors(document)) == []
    document["star"]["dim_staff"]["column"] = {}
    document["star"]["fact_payment"]["columns"]["paid"] = {"from": 7}
    document["source"]["tables"]["staff"]["columns"]["staff_id"] = {"type": "integer"}
    assert len(list(validator.iter_errors(document))) == 3


def test_a_released_version_has_not_changed() -> None:
    require_unchanged(DIRECTORY)


def test_every_schema_and_document_is_written() -> None:
    known = {f"{kind}.json" for kind in TYPES} | {ASYNCAPI, CONTRACT}
    assert {path.name for path in DIRECTORY.iterdir()} == known, "run `make schemas`, and commit what it writes"


def test_the_asyncapi_document_is_current() -> None:
    assert (DIRECTORY / ASYNCAPI).read_text(encoding="utf-8") == current_asyncapi(), "run `make schemas`"


def test_a_changed_model_without_a_new_version_is_refused_and_its_schema_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_schemas(tmp_path)
    released = (tmp_path / "starlift.ingest_source.v2.json").read_text()
    monkeypatch.setattr(schemas, "MESSAGE_MODELS", (_ChangedCommand,))
    with pytest.raises(ReleasedSchemaError, match=r"^the model of starlift\.ingest_source\.v2 .* give it a new version"):
        write_schemas(tmp_path)
    assert (tmp_path / "starlift.ingest_source.v2.json").read_text() == released


def test_a_reworded_docstring_needs_no_new_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_schemas(tmp_path)
    monkeypatch.setattr(IngestSource, "__doc__", "Another sentence.")
    assert schemas.json_schema(IngestSource) == golden("starlift.ingest_source.v2")


def test_writing_a_second_time_changes_nothing(tmp_path: Path) -> None:
    assert write_schemas(tmp_path) == [*(f"{kind}.json" for kind in schemas.json_schemas()), ASYNCAPI, CONTRACT]
    assert write_schemas(tmp_path) == []


def test_the_command_lists_the_files_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tools.schemas.DIRECTORY", tmp_path)
    main()
    assert "wrote starlift.batch_loaded.v2.json" in capsys.readouterr().out
    main()
    assert capsys.readouterr().out == "every schema is up to date\n"
    (tmp_path / "starlift.batch_loaded.v2.json").write_text("{}")
    with pytest.raises(SystemExit, match="give it a new version"):
        main()


@pytest.mark.parametrize("kind", TYPES)
def test_a_golden_schema_is_valid_in_its_dialect(kind: str) -> None:
    assert golden(kind)["$schema"] == DIALECT
    jsonschema.Draft202012Validator.check_schema(golden(kind))


@pytest.mark.parametrize("kind", TYPES)
def test_the_golden_example_of_each_type_fits_its_golden_schema(kind: str) -> None:
    assert problems(kind, example(kind)) == []


@pytest.mark.parametrize("kind", sorted(KNOWN_TYPES))
def test_the_golden_example_of_each_type_is_decoded_and_encoded_unchanged(kind: str) -> None:
    assert json.loads(encode(decode(json.dumps(example(kind))))) == example(kind)


@pytest.mark.parametrize("kind", sorted(UPCASTS))
def test_the_golden_example_of_a_former_version_is_upcast(kind: str) -> None:
    message = decode(json.dumps(example(kind)))
    assert message.type in KNOWN_TYPES
    assert problems(message.type, json.loads(encode(message))) == []


def test_the_golden_failure_record_is_read_and_written_unchanged() -> None:
    record = FailureRecord.model_validate(example(FAILURE_RECORD_TYPE))
    assert json.loads(record.model_dump_json()) == example(FAILURE_RECORD_TYPE)


@pytest.mark.parametrize("kind", FORMER_RECORDS)
def test_a_failure_record_of_an_earlier_build_is_read_and_grouped_by_what_it_says(kind: str) -> None:
    record = read_failure(json.dumps(example(kind)))
    assert record is not None
    assert record.fingerprint == fingerprint_of(example(kind)["fingerprint"], normalised(example(kind)["message"]))
    assert read_failure(record.model_dump_json()) == record


def test_a_failure_record_of_a_later_build_is_read_and_fits_the_schema() -> None:
    """Unlike a message it has no versions: it stays in a queue for a fortnight, whichever build reads it."""
    later = example(FAILURE_RECORD_TYPE) | {"trace": "x"}
    assert FailureRecord.model_validate(later) == FailureRecord.model_validate(example(FAILURE_RECORD_TYPE))
    assert problems(FAILURE_RECORD_TYPE, later) == []


@pytest.mark.parametrize("kind", sorted(KNOWN_TYPES))
def test_a_golden_schema_rejects_other_events(kind: str) -> None:
    document = example(kind)
    assert problems(kind, {**document, "unknown": 1})
    assert problems(kind, {**document, "type": "starlift.another.v1"})
    for attribute in ("specversion", "type", "id", "source", "time", "data"):
        assert problems(kind, {name: value for name, value in document.items() if name != attribute})
    assert problems(kind, {**document, "id": "no uuid"})


# --- AsyncAPI 3.0 --------------------------------------------------------------------------------------------------

DOCUMENT = json.loads(current_asyncapi())


def references(value: Any) -> Iterator[str]:
    match value:
        case {"$ref": str(reference)}:
            yield reference
        case dict():
            for entry in value.values():
                yield from references(entry)
        case list():
            for entry in value:
                yield from references(entry)
        case _:
            return


def resolved(reference: str) -> Any:
    """The target of a reference. A file name is relative to the document's directory."""
    name, _, pointer = reference.partition("#")
    target = json.loads((DIRECTORY / name).read_text(encoding="utf-8")) if name else DOCUMENT
    for step in pointer.split("/")[1:]:
        target = target[step.replace("~1", "/").replace("~0", "~")]
    return target


def test_the_document_has_what_asyncapi_3_requires() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    known = {"asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components"}
    assert DOCUMENT.keys() <= known
    for channel in DOCUMENT["channels"].values():
        assert {"address", "messages"} <= channel.keys()
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in {"send", "receive"}
        assert operation["channel"]["$ref"].startswith("#/channels/")


def test_every_reference_resolves() -> None:
    found = set(references(DOCUMENT))
    assert f"./{FAILURE_RECORD_TYPE}.json" in found
    for reference in found:
        assert resolved(reference)


def test_an_operation_refers_only_to_messages_of_its_own_channel() -> None:
    for operation in DOCUMENT["operations"].values():
        prefix = f"{operation['channel']['$ref']}/messages/"
        assert all(message["$ref"].startswith(prefix) for message in operation["messages"])


def test_there_are_four_queues_and_their_dead_letter_queues() -> None:
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}
    queues = ("ingestion", "chunks", "remodelling", "loading")
    assert addresses == {f"starlift-{queue}{suffix}" for queue in queues for suffix in ("", "-dlq")}


def test_a_service_has_its_own_queue_and_its_own_dead_letter_queue() -> None:
    for service in ("ingestion", "remodelling", "loading"):
        assert DOCUMENT["operations"][f"{service}.receive"]["channel"] == {"$ref": f"#/channels/{service}"}
        dead = DOCUMENT["operations"][f"{service}.give_up"]
        assert (dead["action"], dead["channel"]) == ("send", {"$ref": f"#/channels/{service}-dead-letters"})


def test_every_message_is_a_structured_cloudevent_whose_payload_is_a_golden_schema() -> None:
    for name, message in DOCUMENT["components"]["messages"].items():
        assert message["contentType"] == "application/cloudevents+json"
        assert message["payload"] == {"$ref": f"./{name.removesuffix('.dead_letter')}.json"}
        assert {"$ref": "#/components/messageTraits/cloudevent"} in message["traits"]


def test_a_dead_letter_carries_the_failure_attribute() -> None:
    headers = DOCUMENT["components"]["messageTraits"]["dead_letter"]["headers"]
    assert headers["required"] == ["starlift.failure"]
    dead = {name for name in DOCUMENT["components"]["messages"] if name.endswith(".dead_letter")}
    assert len(dead) == len(ROUTES)


def test_an_example_is_a_real_document_and_not_a_placeholder() -> None:
    ids = [UUID(example(kind)["id"]) for kind in KNOWN_TYPES]
    assert len(set(ids)) == len(ids)
