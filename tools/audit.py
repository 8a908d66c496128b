"""Known vulnerabilities of locked packages, by pip-audit.

    python -m tools.audit [--required] LOCK ...

Exit code 0 where none is known, and where the vulnerability service cannot be reached: a machine without network can still run
every other check. Exit code 1 for a known vulnerability or a lock file that cannot be read; with --required, as on GitHub, also
where the service cannot be reached.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

_REQUIRED = "--required"
_LIMIT_S = 180
_COMMAND = (sys.executable, "-m", "pip_audit", "--disable-pip", "--progress-spinner=off", "--timeout=5")


def main(arguments: Sequence[str]) -> int:
    """Audit the lock files together and print what pip-audit finds."""
    locks = [argument for argument in arguments if argument != _REQUIRED]
    is_required = len(locks) < len(arguments)
    command = [*_COMMAND, *(f"--requirement={lock}" for lock in locks)]
    readable = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    if readable.returncode != 0:
        print(f"audit: cannot read the lock files: {readable.stderr.strip()}", file=sys.stderr)
        return 1
    try:
        audit = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)  # noqa: S603 - likewise
    except subprocess.TimeoutExpired:
        return _unaudited(f"no answer within {_LIMIT_S} s", is_required=is_required)
    if audit.returncode != 0 and not audit.stdout.strip():  # a finding is printed as a table, a failure is not
        return _unaudited((audit.stderr.strip().splitlines() or ["no reason given"])[-1], is_required=is_required)
    print(f"{audit.stdout}{audit.stderr}".strip())
    return audit.returncode


def _unaudited(reason: str, *, is_required: bool) -> int:
    if is_required:
        print(f"audit: FAILED, nothing was audited: {reason}; run it again when the vulnerability service can be reached")
        return 1
    print(f"audit: SKIPPED, nothing was audited: {reason}; run `make audit` where the vulnerability service can be reached")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
