"""The AWS CLI's commands and options, from botocore's models of the services, of which the CLI is made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import botocore.session
import jmespath
from botocore import xform_name
from botocore.exceptions import UnknownServiceError
from botocore.model import Shape

_GLOBAL = {"cli-input-json", "max-items", "output", "query", "region"}
_OF_THE_CLI = {  # commands that no model has
    "ecr get-login-password": set[str](),
    "logs tail": {"follow", "format", "log-stream-name-prefix", "since"},
    "s3 rm": {"recursive"},
}
_SHORT = {"ec2 authorize-security-group-ingress": {"port", "protocol", "source-group"}}  # options that no model has
_CALL = re.compile(
    r"\baws ([a-z0-9-]+) (wait )?([a-z0-9-]+)(?=((?:\$\([^)]*\)|[^\n;|&])*))"
)  # a call may be inside another one


def findings(script: str) -> Iterator[str]:
    """The commands, options and queries in a shell script that the AWS CLI does not understand, a sentence each."""
    code = re.sub(r"^ *#.*", "", script, flags=re.MULTILINE).replace("\\\n", " ")
    for match in _CALL.finditer(code):
        service, waits, command, rest = match.groups()
        known = _options(service, command, is_wait=bool(waits))
        if known is None:
            yield f"there is no `aws {service} {waits or ''}{command}`"
            continue
        given = re.sub(r"\$\([^)]*\)|'[^']*'|\"[^\"]*\"", "", rest).partition(")")[0]
        for option in re.findall(r"(?<=\s)--([a-z0-9-]+)", given):
            if option not in known | _GLOBAL:
                yield f"`aws {service} {waits or ''}{command}` has no --{option}"
    for query in re.findall(r"--query (?:'([^'$]+)'|([\w.]+))", code):
        try:
            jmespath.compile(query[0] or query[1])
        except jmespath.exceptions.ParseError as error:
            yield f"--query {query[0] or query[1]} is not JMESPath: {error.msg}"


@cache
def _options(service: str, command: str, *, is_wait: bool) -> set[str] | None:
    """The options of a command; None if there is no such command."""
    if f"{service} {command}" in _OF_THE_CLI:
        return _OF_THE_CLI[f"{service} {command}"]
    session = botocore.session.get_session()
    try:
        model = session.get_service_model("s3" if service == "s3api" else service)
    except UnknownServiceError:
        return None
    names = {xform_name(name, "-"): name for name in model.operation_names}
    if is_wait:
        waiters = session.get_waiter_model(model.service_name)
        names = {xform_name(name, "-"): waiters.get_waiter(name).operation for name in waiters.waiter_names}
    if command not in names:
        return None
    shape: Shape | None = model.operation_model(names[command]).input_shape
    spelled = {option for name, member in getattr(shape, "members", {}).items() for option in _spelled(name, member)}
    return spelled | _SHORT.get(f"{service} {command}", set())


def _spelled(name: str, member: Shape) -> Iterator[str]:
    option = xform_name(name, "-")
    yield option
    if member.type_name == "boolean":
        yield f"no-{option}"
