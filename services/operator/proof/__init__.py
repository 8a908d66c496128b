"""The proof: what the star should hold is computed from the source in SQL, and compared with what it does hold.

It shares nothing with the remodelling but the contract and the ISO 4217 table, and with ingestion only how texts compare
(shared/equality.py), how large a value may be and, for what an expression reads, which values can't travel (shared/codecs): an
error in code that both sides used would be on both sides.

Of data sets, which can't be asked again, it reads what was delivered as ingestion does (shared/landed.py) into temporary tables
of the warehouse, and finds out by itself which of several rows counts (`delivered`).

The way of a value: `expected` makes its text on the source, `computed` that of a derived column, and `actual` on the warehouse;
`canonical` hashes both sides by bucket and lists the rows of buckets that differ; `table_comparison` asks for them,
`row_comparison` compares them, and `verdict` judges what was found.

Around it: `verify` runs all of it and keeps the verdict; `look` opens both snapshots; `causes` names what a row may wait for;
`loaded` reads what batches have brought; `repair` asks for the rows that differ; `report` prints the verdict as HTML.
`history`, with the statements of `history_sql`, checks the older versions of facts, which the source no longer has.
"""
