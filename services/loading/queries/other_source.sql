-- A source other than $1 whose batches are in the ledger; in two halves, each of which an index answers.
SELECT min(source_name) FROM (
    (SELECT source_name FROM starlift.ledger WHERE source_name < $1 LIMIT 1)
    UNION ALL
    (SELECT source_name FROM starlift.ledger WHERE source_name > $1 LIMIT 1)
) AS other
