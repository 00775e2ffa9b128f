"""Scores wide sessions with DuckDB: the same results as `normstream score`, as one SQL statement.

Rows come out in no particular order, since DuckDB's joins keep none and sorting would only cost it more.

    python3 duckdb_job.py --sessions wide.parquet --norms norms.parquet --published klsi4_published.csv --to out.parquet

Norms are lists that a row indexes, in a table of one row that is joined to all sessions: measured against a hash join for each
scale and link of the chain, this was twice as fast. The attributes education_level, country, date_of_birth and gender must
be there; age_band and started_at are not looked for.
"""

import duckdb

import klsi4
from klsi4 import CONTEXTS, ITEMS, MODES, SCALES, STYLE_ITEMS


def load(arguments):
    connection = duckdb.connect()
    connection.execute(f"SET threads = {arguments.threads}")
    connection.execute("SET TimeZone = 'UTC'")
    return lambda: score(connection, arguments)


def score(connection, arguments):
    make_tables(connection, arguments)
    query = statement(arguments.sessions)
    connection.execute(f"COPY ({query}) TO '{arguments.to}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)")
    return connection.execute(f"SELECT count(*) FROM '{arguments.to}'").fetchone()[0]


def make_tables(connection, arguments):
    """Makes `groups`, which numbers the norm groups from 1, and `tables`, one row of lists."""
    style, backup = klsi4.styles()
    fault_codes, fault_sentences = klsi4.faults()
    lists = {
        "styles": ("VARCHAR[]", style),
        "backups": ("VARCHAR[]", backup),
        "regions": ("VARCHAR[]", klsi4.regions()),
        "fault_codes": ("VARCHAR[]", fault_codes),
        "fault_sentences": ("VARCHAR[]", fault_sentences),
        "truncated_lists": ("VARCHAR[][]", klsi4.subsets(list(SCALES)[:-1])),
        "flag_lists": ("VARCHAR[][]", klsi4.subsets(klsi4.FLAGS)),
    }
    connection.execute(
        f"""CREATE TEMP TABLE norms AS
            SELECT norm_group, lower(scale) AS scale, raw_score::INTEGER AS raw_score, percentile::DOUBLE AS percentile
            FROM '{arguments.norms}' WHERE norm_version = 'default'"""
    )
    connection.execute(
        """CREATE TEMP TABLE groups AS
           SELECT norm_group AS token, (row_number() OVER (ORDER BY norm_group))::INTEGER AS number
           FROM (SELECT DISTINCT norm_group FROM norms)"""
    )
    # Group 0 is the published table.
    answers = klsi4.published(arguments.published)
    for scale, (lowest, count) in SCALES.items():
        connection.execute(
            f"""CREATE TEMP TABLE norms_{scale} AS SELECT list(percentile ORDER BY index) AS percentiles_{scale} FROM (
                    SELECT index, coalesce(own.percentile, published) AS percentile
                    FROM range((SELECT count(*) + 1 FROM groups) * {count}) all_keys(index)
                    LEFT JOIN (
                        SELECT number * {count} + raw_score - {lowest} AS index, percentile
                        FROM norms JOIN groups ON norm_group = token
                        WHERE scale = '{scale}' AND raw_score BETWEEN {lowest} AND {lowest + count - 1}
                    ) own USING (index)
                    LEFT JOIN (
                        SELECT unnest(range({count})) AS index, unnest(?::DOUBLE[]) AS published
                    ) published USING (index)
                )""",
            [answers[scale]],
        )
    columns = ", ".join(f"?::{data_type} AS {name}" for name, (data_type, _) in lists.items())
    bands = ", ".join(f"(SELECT number FROM groups WHERE token = 'AGE:{name}')" for _, name in klsi4.AGE_BANDS)
    connection.execute(
        f"""CREATE TEMP TABLE tables AS
            SELECT {columns}, [{bands}] AS age_groups,
                   (SELECT number FROM groups WHERE token = 'Total') AS total_group,
                   list_prepend('published', (SELECT list(token ORDER BY number) FROM groups)) AS group_names,
                   {", ".join(f"(SELECT percentiles_{scale} FROM norms_{scale}) AS percentiles_{scale}" for scale in SCALES)}""",
        [values for _, values in lists.values()],
    )


def statement(sessions):
    return f"""
    WITH sessions AS (
        SELECT * FROM '{sessions}'
    ), validated AS (
        SELECT *, coalesce({" AND ".join(is_permutation(item) for item in ITEMS)}, false) AS ok FROM sessions
    ), linked AS (
        SELECT validated.*, education.number AS link1, country.number AS link2, gender.number AS link4
        FROM validated
        LEFT JOIN groups education ON education.token = 'EDU:' || education_level
        LEFT JOIN groups country ON country.token = 'COUNTRY:' || validated.country
        LEFT JOIN groups gender ON gender.token = 'GENDER:' || validated.gender
    ), summed AS (
        SELECT linked.*, tables.*, {age_band()} AS link3, total_group AS link5,
               {", ".join(f"CASE WHEN ok THEN {total(STYLE_ITEMS, mode)} END AS {mode}_raw" for mode in MODES)},
               {", ".join(f"CASE WHEN ok THEN {total(CONTEXTS, mode)} - 20 END AS {mode}_r" for mode in MODES)},
               {", ".join(f"CASE WHEN ok THEN {ranking(context)} END AS {context}" for context in CONTEXTS)},
               CASE WHEN NOT ok THEN coalesce({", ".join(first_fault(*item) for item in enumerate(ITEMS))}) END AS fault
        FROM linked CROSS JOIN tables
    ), combined AS (
        SELECT *, ac_raw - ce_raw AS acce_raw, ae_raw - ro_raw AS aero_raw,
               (320 - {" - ".join(f"{mode}_r * {mode}_r" for mode in MODES)})::INTEGER AS lfi_raw
        FROM summed
    ), resolved AS (
        SELECT *, {", ".join(f"{answering_group(scale)} AS {scale}_group" for scale in SCALES)} FROM combined
    ), answered AS (
        SELECT *, {", ".join(f"{at(f'percentiles_{scale}', key(scale, f'{scale}_group'))} AS {scale}_percentile" for scale in SCALES)},
               {" + ".join(truncated(bit, scale) for bit, scale in enumerate(klsi4.PUBLISHED_RANGE))} AS truncated,
               {" + ".join(f"({scale}_group = 0)::INTEGER" for scale in SCALES)} AS published_scales,
               (320 - lfi_raw) / 320.0::DOUBLE AS w,
               73 * (acce_raw + 36) + aero_raw + 36 AS cell
        FROM resolved
    )
    SELECT session_id, user_id, completed_at::TIMESTAMPTZ AS completed_at, ok,
           CASE WHEN NOT ok THEN 'validate' END AS error_stage,
           {at("fault_codes", "fault")} AS error_code,
           {at("fault_sentences", "fault")} AS error,
           {", ".join(f"{mode}_raw::SMALLINT AS {mode}_raw" for mode in MODES)},
           acce_raw::SMALLINT AS acce, aero_raw::SMALLINT AS aero,
           (ac_raw + ro_raw - ae_raw - ce_raw)::SMALLINT AS assimilation_accommodation,
           (ac_raw + ae_raw - ce_raw - ro_raw)::SMALLINT AS converging_diverging,
           abs(acce_raw - 9)::SMALLINT AS balance_acce, abs(aero_raw - 6)::SMALLINT AS balance_aero,
           {at("styles", "cell")} AS style, {at("backups", "cell")} AS backup_style,
           (abs(acce_raw) + abs(aero_raw))::SMALLINT AS intensity,
           w AS kendall_w, lfi_raw / 320.0::DOUBLE AS lfi,
           CASE WHEN lfi_percentile < 33.34 THEN 'low' WHEN lfi_percentile <= 66.67 THEN 'moderate'
                WHEN lfi_percentile IS NOT NULL THEN 'high' END AS flexibility_level,
           CASE WHEN ok THEN [{", ".join(at("regions", context) for context in CONTEXTS)}] END AS context_styles,
           {", ".join(f"{scale}_percentile" for scale in SCALES)},
           {", ".join(f"{at('group_names', f'{scale}_group')} AS {scale}_norm_group" for scale in SCALES)},
           published_scales > 0 AS used_fallback,
           {at("truncated_lists", "truncated")} AS truncated_scales,
           {at("flag_lists", flags())} AS flags
    FROM answered
    """


def is_permutation(item):
    """Four whole numbers are 1, 2, 3 and 4 if and only if they sum to 10 and their squares to 30."""
    ranks = [f"{item}_{mode}" for mode in MODES]
    numbers = " + ".join(f"{rank}::INTEGER" for rank in ranks)
    squares = " + ".join(f"{rank}::INTEGER * {rank}" for rank in ranks)
    return f"({numbers} = 10 AND {squares} = 30)"


def first_fault(number, item):
    """The number of an item's first fault, or null."""
    missing = [f"WHEN {item}_{mode} IS NULL THEN {9 * number + place}" for place, mode in enumerate(MODES)]
    outside = [f"WHEN {item}_{mode} NOT BETWEEN 1 AND 4 THEN {9 * number + 4 + place}" for place, mode in enumerate(MODES)]
    return f"CASE {' '.join(missing + outside)} WHEN NOT ({is_permutation(item)}) THEN {9 * number + 8} END"


def age_band():
    """The group of the age band: that of the completed years between the date of birth and the day of the session."""
    years = """year(completed_at) - year(date_of_birth)
        - (32 * month(completed_at) + day(completed_at) < 32 * month(date_of_birth) + day(date_of_birth))::INTEGER"""
    bounds = [bound for bound, _ in klsi4.AGE_BANDS]
    band = " ".join(f"WHEN years >= {bound} THEN {place}" for place, bound in reversed(list(enumerate(bounds))))
    return at("age_groups", f"CASE {band.replace('years', f'({years})')} END")


def total(items, mode):
    return "(" + " + ".join(f"{item}_{mode}" for item in items) + ")::INTEGER"


def ranking(context):
    return f"16 * {context}_ce::INTEGER + 4 * {context}_ro::INTEGER + {context}_ac::INTEGER"


def at(table, index):
    """The value of a list at an index that counts from 0."""
    return f"{table}[({index}) + 1]"


def key(scale, group):
    lowest, count = SCALES[scale]
    return f"{group} * {count} + {scale}_raw - ({lowest})"


def answering_group(scale):
    """The first group of the chain that holds the raw score, else the published table."""
    links = [f"link{place}" for place in range(1, 6)]
    tried = [f"WHEN {at(f'percentiles_{scale}', key(scale, link))} IS NOT NULL THEN {link}" for link in links]
    return f"CASE WHEN NOT ok THEN NULL {' '.join(tried)} ELSE 0 END"


def truncated(bit, scale):
    lowest, highest = klsi4.PUBLISHED_RANGE[scale]
    return f"({scale}_raw NOT BETWEEN {lowest} AND {highest})::INTEGER * {1 << bit}"


def flags():
    repeated = [" + ".join(f"({context} = {one})::INTEGER" for context in CONTEXTS) for one in CONTEXTS[:3]]
    conditions = [
        "acce_raw IN (5, 6, 14, 15) OR aero_raw IN (0, 1, 11, 12)",
        "w < 0.05",
        "w > 0.95",
        " OR ".join(f"{count} >= 6" for count in repeated),
        "published_scales BETWEEN 1 AND 6",
        "bit_count(truncated) >= 2",
    ]
    return " + ".join(f"({condition})::INTEGER * {1 << bit}" for bit, condition in enumerate(conditions))


if __name__ == "__main__":
    klsi4.main(load)
