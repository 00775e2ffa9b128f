"""Compares results in Parquet, read by a library, with the same results in NDJSON.

    python3 read_results.py pyarrow|duckdb|polars results.parquet results.ndjson

Numbers must be equal to the bit, and one group of rows that a filter selects must be the same: filters use statistics.
"""

import datetime
import json
import os
import sys


def pyarrow_rows(path):
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    thinking = pyarrow.parquet.read_table(path, filters=[("style", "==", "thinking"), ("acce", ">", 20)])
    return table.to_pylist(), thinking["session_id"].to_pylist()


def duckdb_rows(path):
    import duckdb

    connection = duckdb.connect()
    # Times with a zone would need an extension that DuckDB fetches.
    completed = "make_timestamp(epoch_us(completed_at)) AS completed_at"
    result = connection.execute(f"SELECT * REPLACE ({completed}) FROM read_parquet(?)", [path])
    names = [column[0] for column in result.description]
    rows = [dict(zip(names, row)) for row in result.fetchall()]
    thinking = connection.execute(
        "SELECT session_id FROM read_parquet(?) WHERE style = 'thinking' AND acce > 20 ORDER BY session_id", [path]
    )
    return rows, [row[0] for row in thinking.fetchall()]


def polars_rows(path):
    import polars

    thinking = polars.scan_parquet(path).filter((polars.col("style") == "thinking") & (polars.col("acce") > 20))
    return polars.read_parquet(path).to_dicts(), thinking.collect()["session_id"].to_list()


def plain(value):
    """A value as NDJSON has it: times as text in UTC to the second, which is all that the golden sessions have."""
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return value


def main(library, parquet, ndjson):
    rows, thinking = {"pyarrow": pyarrow_rows, "duckdb": duckdb_rows, "polars": polars_rows}[library](parquet)
    with open(ndjson, encoding="utf-8") as lines:
        expected = [json.loads(line) for line in lines]
    assert len(rows) == len(expected), f"{len(rows)} rows and not {len(expected)}"
    for number, (row, wanted) in enumerate(zip(rows, expected)):
        assert list(row) == list(wanted), f"the columns are {list(row)}"
        for name, value in row.items():
            assert plain(value) == wanted[name], f"{name} in row {number} is {value!r} and not {wanted[name]!r}"
    selected = [row["session_id"] for row in expected if row["style"] == "thinking" and (row["acce"] or 0) > 20]
    assert selected and thinking == selected, "a filter selects other rows"
    failed = sum(not row["ok"] for row in rows)
    print(f"{len(rows)} rows of {len(rows[0])} columns are equal, {failed} of them not ok")


if __name__ == "__main__":
    main(*sys.argv[1:])
    # The threads of some libraries end the interpreter with an abort when they outlive it: it leaves without waiting for them.
    sys.stdout.flush()
    os._exit(0)
