"""Loading: merges the star rows of a batch into the warehouse, in one transaction."""
