"""The proof: what the star should hold is computed from the source in SQL, and compared with what it does hold.

It shares nothing with the remodelling but the contract and the ISO 4217 table, and with ingestion only how texts compare
(shared/equality.py) and how large a value may be: an error in code that both sides used would be on both sides.

The way of a value: `expected` makes its text on the source, `actual` on the warehouse; `canonical` hashes both sides by bucket
and lists the rows of buckets that differ; `table_comparison` asks for them, `comparison` compares them row by row, and
`verdict` judges what was found. `verify` runs all of it: `look` opens both snapshots, `causes` and `waiting` define what a row
may wait for, `settling` compares again once a later run is loaded.
"""
