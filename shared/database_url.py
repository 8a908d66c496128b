"""Where the URL of a database comes from: the environment, or a secret of AWS Secrets Manager."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError
from pydantic import SecretStr

from shared.aws_errors import aws_errors, error_code
from shared.errors import PermanentError
from shared.postgres_url import has_login, parse_url

_CONFIG = AioConfig(connect_timeout=5, read_timeout=10)


async def database_url(name: str, *, url: SecretStr | None, secret_id: str | None, region: str) -> SecretStr:
    """The URL of the database called `name` in error texts: `url` if it names a user, else the secret's.

    The secret is a URL, or JSON as AWS makes it for a managed database: username, password and, unless `url` says where the
    database is, host, port and dbname. For JSON, sslmode is verify-full unless `url` has another one.
    Raises: PermanentError when neither is given, the secret does not exist or can't be read as either; DependencyDownError.
    """
    if url is None and secret_id is None:
        variables = f"STARLIFT_{name.upper()}_URL or STARLIFT_{name.upper()}_SECRET"
        raise PermanentError(f"no {name} database configured: set {variables}")
    if url is None or (secret_id is not None and not has_login(url)):
        text = await read_secret(str(secret_id), region)
        url = SecretStr(_url_of(name, text, url) if text.startswith("{") else text)
    parse_url(name, url)  # so that a wrong one is found before a connection is needed
    return url


def _url_of(name: str, text: str, place: SecretStr | None) -> str:
    """The URL that a JSON secret stands for; `place` says where the database is if the secret has the login only."""
    bare = place.get_secret_value().strip().partition("://")[2] if place else ""
    address, database, query = re.fullmatch(r"([^/?]*)/?([^?]*)\??(.*)", bare, re.DOTALL).groups()  # type: ignore[union-attr]
    try:
        secret = json.loads(text)
        login = f"{quote(secret['username'], safe='')}:{quote(secret['password'], safe='')}"
        if not address and "host=" not in query and "host" in secret:
            host = f"[{secret['host']}]" if ":" in secret["host"] else secret["host"]
            address = f"{host}:{int(secret.get('port') or 5432)}"
        if not database and "dbname=" not in query:
            database = quote(secret.get("dbname") or secret["username"], safe="")
    except (ValueError, TypeError, KeyError):
        raise PermanentError(
            f"the secret of the {name} database can't be read; it should be a URL, or JSON with username, password, host, port "
            "and dbname"
        ) from None  # the cause holds the secret
    if not address and "host=" not in query:
        raise PermanentError(
            f"the secret of the {name} database has no host; set STARLIFT_{name.upper()}_URL to postgresql://host:port/database"
        )
    if "sslmode=" not in query:
        query = f"{query}&sslmode=verify-full".removeprefix("&")
    return f"postgresql://{login}@{address}/{database}?{query}"


async def read_secret(secret_id: str, region: str) -> str:
    """The text of a secret of AWS Secrets Manager.

    Raises: PermanentError when it does not exist or may not be read; DependencyDownError, TransientError.
    """
    if not region:
        raise PermanentError(f"no region to read secret '{secret_id}' in: set STARLIFT_REGION")
    with aws_errors("secretsmanager", secret_id):
        async with get_session().create_client("secretsmanager", region_name=region, config=_CONFIG) as client:
            try:
                answer = await client.get_secret_value(SecretId=secret_id)
            except ClientError as error:
                if error_code(error) == "ResourceNotFoundException":
                    raise PermanentError(f"secret '{secret_id}' does not exist in {region}; rerun the set-up") from error
                raise
    return str(answer.get("SecretString", "")).strip()
