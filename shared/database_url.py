"""Where a database is: told by the environment, or by a secret of AWS Secrets Manager."""

from __future__ import annotations

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError
from pydantic import SecretStr

from shared.aws_errors import aws_errors, error_code
from shared.errors import PermanentError

_SCHEMES = ("postgresql://", "postgres://")
_CONFIG = AioConfig(connect_timeout=5, read_timeout=10)


async def database_url(name: str, *, url: SecretStr | None, secret_id: str | None, region: str) -> SecretStr:
    """The URL of the database called `name` in error texts: `url` where it is given, else the text of the secret.

    Raises: PermanentError when neither is given, the secret does not exist or holds no URL; DependencyDownError.
    """
    if url is None and secret_id is None:
        raise PermanentError(f"nobody says where the {name} database is; set its URL or its secret's id in the environment")
    found = url if url is not None else await _secret(str(secret_id), region)
    if not found.get_secret_value().startswith(_SCHEMES):
        raise PermanentError(f"the {name} database's URL must start with postgresql://; correct the setting or the secret")
    return found


async def _secret(secret_id: str, region: str) -> SecretStr:
    with aws_errors("secretsmanager", secret_id):
        async with get_session().create_client("secretsmanager", region_name=region, config=_CONFIG) as client:
            try:
                answer = await client.get_secret_value(SecretId=secret_id)
            except ClientError as error:
                if error_code(error) == "ResourceNotFoundException":
                    raise PermanentError(f"there is no secret '{secret_id}' in {region}; rerun the set-up") from error
                raise
    return SecretStr(answer.get("SecretString", "").strip())
