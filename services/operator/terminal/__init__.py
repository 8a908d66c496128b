"""The `starlift` command: the only package that imports typer and rich, and the only one that knows exit codes.

Below it, functions return read models and raise the errors of `services.operator.errors` and `shared.errors`.
"""
