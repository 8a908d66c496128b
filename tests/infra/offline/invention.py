"""Plausible values for what only AWS could compute: ARNs, URLs, ids. They are made of the resource's own name."""

from __future__ import annotations

from typing import Any

ACCOUNT = "123456789012"
_NAMED_BY = ("name", "bucket", "family", "alarm_name", "dashboard_name", "group_name", "repository_name")
# Of what is not arn:aws:SERVICE:REGION:ACCOUNT:NAME, what follows "arn:aws:".
_ARNS = {
    "aws_cloudwatch_log_group": "logs:{region}:{account}:log-group:{name}",
    "aws_cloudwatch_metric_alarm": "cloudwatch:{region}:{account}:alarm:{name}",
    "aws_ecr_repository": "ecr:{region}:{account}:repository/{name}",
    "aws_ecs_cluster": "ecs:{region}:{account}:cluster/{name}",
    "aws_ecs_service": "ecs:{region}:{account}:service/{name}/{name}",
    "aws_ecs_task_definition": "ecs:{region}:{account}:task-definition/{name}:1",
    "aws_iam_openid_connect_provider": "iam::{account}:oidc-provider/token.actions.githubusercontent.com",
    "aws_iam_role": "iam::{account}:role/{name}",
    "aws_kms_key": "kms:{region}:{account}:key/00000000-0000-0000-0000-000000000000",
    "aws_s3_bucket": "s3:::{name}",
    "aws_scheduler_schedule_group": "scheduler:{region}:{account}:schedule-group/{name}",
    "aws_secretsmanager_secret": "secretsmanager:{region}:{account}:secret:{name}-AbCdEf",  # nosec B105
}


class Inventor:
    """Invents values for one account and region."""

    def __init__(self, region: str = "eu-west-2") -> None:
        self._region = region

    def value(self, type_name: str, attribute: str, kind: Any, given: dict[str, Any]) -> Any:
        """A value that AWS could have computed for an attribute of type `kind`, spelled as in the schema."""
        name = next((text for key in _NAMED_BY if isinstance(text := given.get(key), str)), type_name)
        match attribute:
            case "arn":
                return self._arn(type_name, name)
            case "account_id":
                return ACCOUNT
            case "region":
                return self._region
            case "tags_all":
                return given.get("tags") or {}
            case "id" if type_name == "aws_ecs_cluster":
                return self._arn(type_name, name)
            case "url" | "id" if type_name == "aws_sqs_queue":
                return f"https://sqs.{self._region}.amazonaws.com/{ACCOUNT}/{name}"
            case "id" | "name" | "key_id":
                return name
            case "repository_url" | "image_uri":
                digest = f"@sha256:{'7e' * 32}" if attribute == "image_uri" else ""
                return f"{ACCOUNT}.dkr.ecr.{self._region}.amazonaws.com/{name}{digest}"
            case _:
                return _of_type(kind, f"made-up-{type_name}-{attribute}")

    def _arn(self, type_name: str, name: str) -> str:
        service = type_name.split("_")[1]
        form = _ARNS.get(type_name, service + ":{region}:{account}:{name}")
        return "arn:aws:" + form.format(region=self._region, account=ACCOUNT, name=name)


def _of_type(kind: Any, text: str) -> Any:
    match kind:
        case "number":
            return 1
        case "bool":
            return False
        case ["map" | "object", _]:
            return {}
        case [_, _]:
            return []
        case _:
            return text
