"""What the local stack says when it can't go on."""

from __future__ import annotations

from shared.errors import PermanentError

# The advice where no PostgreSQL can be embedded.
OWN_DATABASES = "give `starlift up` databases of your own with STARLIFT_UP_SOURCE_URL and STARLIFT_UP_WAREHOUSE_URL"


class StackError(PermanentError):
    """The local stack can't do what it was asked. The text is the one sentence for the person: rule, value, what to do."""
