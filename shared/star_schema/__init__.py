"""The star's tables: as a contract wants them, as a warehouse has them, and the changes in between.

The loader carries the changes out, and `starlift plan` shows them.
"""
