"""Known vulnerabilities of locked packages, by pip-audit. Where no vulnerability service answers, it says so and lets pass.

python -m infra.audit LOCK...          exit code 0: none known, or not audited; 1: some known, or a lock can't be read
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

_LIMIT_S = 180
_CONNECT_S = 5


def main(locks: Sequence[str]) -> int:
    """Audits the lock files together and prints the verdict."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--progress-spinner=off", f"--timeout={_CONNECT_S}"]
    command += ["--format=json", *(f"--requirement={lock}" for lock in locks)]
    readable = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    if readable.returncode != 0:
        print(f"audit: the lock files can't be read: {_last_line(readable.stderr)}", file=sys.stderr)
        return 1
    try:
        audit = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)  # noqa: S603 - likewise
    except subprocess.TimeoutExpired:
        return _passed_over(f"the vulnerability service did not answer within {_LIMIT_S} s")
    try:
        packages = json.loads(audit.stdout)["dependencies"]
    except (ValueError, KeyError):
        return _passed_over(f"the vulnerability service can't be reached ({_last_line(audit.stderr)})")
    return verdict(packages)


def verdict(packages: Sequence[dict[str, Any]]) -> int:
    """The exit code, after a line for each finding. `packages` are pip-audit's: each with `vulns`, or `skip_reason`."""
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [(package, flaw) for package in packages for flaw in package.get("vulns", ())]
    for package, flaw in found:
        mended = ", ".join(flaw["fix_versions"]) or "none yet"
        print(f"audit: {package['name']} {package['version']} has {flaw['id']}, mended in: {mended}", file=sys.stderr)
    if found:
        return 1
    if len(skipped) == len(packages):
        return _passed_over(f"the vulnerability service knows none of the {len(packages)} packages")
    if skipped:
        print(f"audit: NOT AUDITED, unknown to the vulnerability service: {', '.join(skipped)}")
    print(f"audit: no known vulnerability in {len(packages) - len(skipped)} packages")
    return 0


def _passed_over(reason: str) -> int:
    print(f"audit: PASSED OVER, nothing was audited: {reason}; run `make audit` where it can be reached")
    return 0


def _last_line(text: str) -> str:
    return next(iter(text.strip().splitlines()[::-1]), "no reason given")[:300]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
