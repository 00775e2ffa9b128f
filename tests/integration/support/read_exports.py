"""Reads what was exported to a folder with libraries that others wrote, and prints counts and checksums, a line a reader.

    python3 read_exports.py FOLDER
"""

import hashlib
import os
import sys

import deltalake
import duckdb
import pyarrow
import pyarrow.csv
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet

folder = sys.argv[1]
COLUMNS = ["session_id", "user_id", "acce", "aero", "style", "ce_raw", "lfi", "lfi_percentile", "completed_at"]
UTC = pyarrow.timestamp("us", "UTC")


def arrow_rows(table):
    times = table["completed_at"].cast(UTC).cast(pyarrow.int64())
    table = table.set_column(table.schema.get_field_index("completed_at"), "completed_at", times)
    return list(zip(*(table[name].to_pylist() for name in COLUMNS)))


def duckdb_rows(source):
    columns = ", ".join(COLUMNS[:-1])
    return duckdb.connect().execute(f"SELECT {columns}, epoch_us(completed_at) FROM {source}").fetchall()


def sums(rows):
    rows = sorted(rows)
    text = ",".join("|".join(map(str, (*row[:5], row[8]))) for row in rows)
    ids, raw = sum(row[0] for row in rows), sum(row[5] for row in rows)
    lfi, percentiles = sum(round(row[6] * 1e9) for row in rows), sum(row[7] is not None for row in rows)
    return f"{len(rows)}|{ids}|{raw}|{percentiles}|{lfi}|{hashlib.md5(text.encode()).hexdigest()}"


times = pyarrow.csv.ConvertOptions(column_types={"completed_at": UTC})
for name, rows in {
    "delta by deltalake": arrow_rows(deltalake.DeltaTable(f"{folder}/delta").to_pyarrow_table()),
    "parquet by pyarrow": arrow_rows(pyarrow.parquet.read_table(f"{folder}/parquet")),
    "parquet by duckdb": duckdb_rows(f"read_parquet('{folder}/parquet/*.parquet')"),
    "csv by pyarrow": arrow_rows(pyarrow.csv.read_csv(f"{folder}/csv.csv", convert_options=times)),
    "csv by duckdb": duckdb_rows(f"read_csv('{folder}/csv.csv')"),
    "ndjson by pyarrow": arrow_rows(pyarrow.json.read_json(f"{folder}/ndjson.ndjson")),
    "ndjson by duckdb": duckdb_rows(f"read_json('{folder}/ndjson.ndjson')"),
    "arrow by pyarrow": arrow_rows(pyarrow.feather.read_table(f"{folder}/arrow.arrow")),
}.items():
    print(f"{name}: {sums(rows)}")
# The threads of some libraries end the interpreter with an abort when they outlive it: it leaves without waiting for them.
sys.stdout.flush()
os._exit(0)
