"""The AsyncAPI 3.0 document of Starlift: its queues, who sends and receives what, and where each payload's schema is.

Generated from the models and the topology, never written by hand. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.failure import FAILURE_ATTRIBUTE
from contracts.routes import ROUTES, Route

ASYNCAPI_VERSION = "3.0.0"
API_VERSION = "1.0.0"  # of what is described here; rises with each message type or version
SQS_BINDING_VERSION = "0.3.0"
CLOUDEVENTS_JSON = "application/cloudevents+json"
FAILURE_RECORD_TYPE = "starlift.failure_record.v2"
_DESCRIPTION = (
    "Commands and events between the services of Starlift. Rows never travel in a message: it refers to objects in S3. "
    "Delivery is at least once and in no order; every effect of a message may be repeated."
)

SERVICES = tuple(dict.fromkeys(route.service for route in ROUTES))
Document = dict[str, Any]


def asyncapi_document(topology: Mapping[str, Any]) -> Document:
    """The whole document; `topology` is the content of infra/topology.json about the queues."""
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": "Starlift",
            "version": API_VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": CLOUDEVENTS_JSON,
        "channels": {name: channel for service in SERVICES for name, channel in _channels(service, topology).items()},
        "operations": {name: operation for service in SERVICES for name, operation in _operations(service).items()},
        "components": {
            "messages": {name: message for route in ROUTES for name, message in _messages(route).items()},
            "messageTraits": {"cloudevent": _cloudevent(), "dead_letter": _dead_letter_trait()},
        },
    }


def _channels(service: str, topology: Mapping[str, Any]) -> Document:
    queue, dead = topology["queues"][service], _dead(service)
    address = f"{topology['name']}-{service}"
    dead_address = f"{address}{topology['dead_letter_suffix']}"
    binding = {
        "name": address,
        "fifoQueue": False,
        "visibilityTimeout": queue["visibility_timeout_s"],
        "messageRetentionPeriod": queue["retention_s"],
        "redrivePolicy": {"deadLetterQueue": {"name": dead_address}, "maxReceiveCount": queue["max_receive_count"]},
    }
    dead_binding = {"name": dead_address, "fifoQueue": False, "messageRetentionPeriod": topology["dead_letter_retention_s"]}
    return {
        service: {
            "address": address,
            "summary": f"What the {service} service works on.",
            "messages": {kind: {"$ref": f"#/components/messages/{kind}"} for kind in _kinds(service)},
            "bindings": {"sqs": {"queue": binding, "deadLetterQueue": dead_binding, "bindingVersion": SQS_BINDING_VERSION}},
        },
        dead: {
            "address": dead_address,
            "summary": f"What the {service} service gave up, each with its failure record.",
            "messages": {
                _dead_message(kind): {"$ref": f"#/components/messages/{_dead_message(kind)}"} for kind in _kinds(service)
            },
            "bindings": {"sqs": {"queue": dead_binding, "bindingVersion": SQS_BINDING_VERSION}},
        },
    }


def _operations(service: str) -> Document:
    kinds, dead = _kinds(service), _dead(service)
    letters = [_dead_message(kind) for kind in kinds]
    sends = {
        f"{sender}.send.{route.kind}": _operation(sender, "send", service, [route.kind])
        for route in ROUTES
        if route.service == service
        for sender in route.senders
    }
    return {
        **sends,
        f"{service}.receive": _operation(service, "receive", service, kinds),
        f"{service}.give_up": _operation(service, "send", dead, letters),
        f"operator.inspect.{dead}": _operation("operator", "receive", dead, letters),
        f"operator.replay.{dead}": _operation("operator", "send", service, kinds),
        f"operator.restore.{dead}": _operation("operator", "send", dead, letters),
    }


def _operation(who: str, action: str, channel: str, messages: list[str]) -> Document:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"} for message in messages],
        "tags": [{"name": who}],
    }


def _messages(route: Route) -> Document:
    title = route.model.__name__
    message = {
        "name": route.kind,
        "title": title,
        "summary": (route.model.__doc__ or "").strip(),
        "contentType": CLOUDEVENTS_JSON,
        "payload": _schema(route.kind),
    }
    cloudevent, dead_letter = ({"$ref": f"#/components/messageTraits/{trait}"} for trait in ("cloudevent", "dead_letter"))
    return {
        route.kind: message | {"traits": [cloudevent]},
        _dead_message(route.kind): message | {"title": f"{title}, a dead letter", "traits": [cloudevent, dead_letter]},
    }


def _cloudevent() -> Document:
    """AsyncAPI has no binding for CloudEvents on SQS; the extension says which of its forms this is."""
    return {
        "summary": "CloudEvents 1.0 in structured content mode: the body is the whole event, attributes and data, in JSON.",
        "x-cloudevents": {"specversion": "1.0", "contentMode": "structured", "format": "json"},
    }


def _dead_letter_trait() -> Document:
    attribute = {
        "type": "string",
        "description": "An SQS message attribute of type String: why and where the message failed, as JSON.",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": f"./{FAILURE_RECORD_TYPE}.json"},
    }
    return {
        "summary": "The body as it was received, byte for byte; one that could not be decoded is not an event.",
        "headers": {"type": "object", "properties": {FAILURE_ATTRIBUTE: attribute}, "required": [FAILURE_ATTRIBUTE]},
    }


def _schema(kind: str) -> Document:
    return {"$ref": f"./{kind}.json"}


def _kinds(service: str) -> list[str]:
    """The types of the messages that a service works on."""
    return [route.kind for route in ROUTES if route.service == service]


def _dead(service: str) -> str:
    return f"{service}-dead-letters"


def _dead_message(kind: str) -> str:
    return f"{kind}.dead_letter"
