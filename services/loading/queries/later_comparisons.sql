-- The key comparisons of the tables $1 that a batch of run $2 came too late for.
SELECT table_name, run, found_at, keys FROM starlift.comparison WHERE table_name = ANY ($1::text[]) AND run > $2
