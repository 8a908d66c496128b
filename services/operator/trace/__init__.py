"""`starlift trace`: the life of one row of the warehouse."""
