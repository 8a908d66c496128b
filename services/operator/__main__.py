"""`python -m services.operator` is `starlift`."""

from __future__ import annotations

from services.operator.terminal.app import main

if __name__ == "__main__":
    main()
