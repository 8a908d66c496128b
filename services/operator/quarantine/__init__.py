"""The quarantine: the rows that the warehouse could not hold, which of them it still lacks, and how to load them again."""
