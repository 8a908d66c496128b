"""A contract before anything runs: proposed from the catalog of a source, kept like it, compared with its databases."""
