"""Scores wide sessions with Polars: the same results as `normstream score`, as one lazy query on the streaming engine.

    python3 polars_job.py --sessions wide.parquet --norms norms.parquet --published klsi4_published.csv --to out.parquet

What is looked up, norms too, is gathered from a series by an index. The attributes education_level, country, date_of_birth and
gender must be there; age_band and started_at are not looked for.
"""

import os

import klsi4
from klsi4 import CONTEXTS, ITEMS, MODES, SCALES, STYLE_ITEMS

RANKS = [f"{item}_{mode}" for item in ITEMS for mode in MODES]


def load(arguments):
    os.environ["POLARS_MAX_THREADS"] = str(arguments.threads)
    global pl
    import polars as pl

    return lambda: score(arguments)


def score(arguments):
    norms = Norms(arguments)
    query = results(pl.scan_parquet(arguments.sessions), norms)
    query.sink_parquet(arguments.to, compression="zstd", compression_level=1)
    return pl.scan_parquet(arguments.to).select(pl.len()).collect().item()


class Norms:
    """Group names by number, and per scale one series of percentiles: all raw scores of group 0, of group 1, and so on.

    Group 0 is the published table. In another group, a raw score that it does not hold is null.
    """

    def __init__(self, arguments):
        scan = pl.scan_csv if arguments.norms.endswith(".csv") else pl.scan_parquet
        rows = scan(arguments.norms).filter(pl.col("norm_version") == "default")
        rows = rows.select(pl.col("norm_group", "scale").cast(pl.String), "raw_score", "percentile").collect()
        groups = rows.select(pl.col("norm_group").unique().sort()).to_series()
        self.names = pl.concat([pl.Series(["published"]), groups.alias("")])
        numbers = pl.DataFrame({"norm_group": groups}).with_row_index("number", offset=1)
        rows = rows.join(numbers, on="norm_group")
        answers = klsi4.published(arguments.published)
        self.percentiles = {}
        for scale, (lowest, count) in SCALES.items():
            own = rows.filter(
                (pl.col("scale") == scale.upper()) & pl.col("raw_score").is_between(lowest, lowest + count - 1)
            ).select(index=pl.col("number").cast(pl.Int64) * count + pl.col("raw_score") - lowest, percentile="percentile")
            keys = pl.DataFrame({"index": pl.int_range(count, count * len(self.names), eager=True)})
            own = keys.join(own, on="index", how="left", maintain_order="left").to_series(1).cast(pl.Float64)
            self.percentiles[scale] = pl.concat([pl.Series(answers[scale], dtype=pl.Float64), own.alias("")])

    def link(self, prefix, value):
        """The number of the group that a column of text names."""
        tokens = self.names.str.starts_with(prefix)
        numbers = tokens.arg_true().cast(pl.Int32)
        values = self.names.filter(tokens).str.strip_prefix(prefix)
        return at(numbers, value.cast(pl.Enum(values), strict=False).to_physical())

    def total(self):
        """The number of the group Total, if it has norms."""
        number = self.names.index_of("Total")
        return pl.lit(number, dtype=pl.Int32)

    def bands(self):
        """The number of the group of each age band."""
        numbers = [self.names.index_of(f"AGE:{name}") for _, name in klsi4.AGE_BANDS]
        return pl.Series(numbers, dtype=pl.Int32)


def results(sessions, norms):
    style, backup = map(pl.Series, klsi4.styles())
    fault_codes, fault_sentences = map(pl.Series, klsi4.faults())
    regions = pl.Series(klsi4.regions(), dtype=pl.String)
    truncated_lists = pl.Series(klsi4.subsets(list(SCALES)[:-1]), dtype=pl.List(pl.String))
    # Polars divides by a constant through its reciprocal, which is off by a bit.
    shares = pl.Series([number / 320 for number in range(321)])
    flag_lists = pl.Series(klsi4.subsets(klsi4.FLAGS), dtype=pl.List(pl.String))
    col = pl.col
    links = {
        "link1": norms.link("EDU:", col("education_level")),
        "link2": norms.link("COUNTRY:", col("country")),
        "link3": at(norms.bands(), age_band()),
        "link4": norms.link("GENDER:", col("gender")),
        "link5": norms.total(),
    }
    sessions = sessions.with_columns(
        ok=pl.all_horizontal(is_permutation(item) for item in ITEMS).fill_null(False), **links
    )
    scored = pl.when("ok")
    sessions = sessions.with_columns(
        fault=pl.struct("ok", *RANKS).map_batches(first_faults, return_dtype=pl.Int32, is_elementwise=True),
        **{f"{mode}_raw": scored.then(total(STYLE_ITEMS, mode)) for mode in MODES},
        **{f"{mode}_r": scored.then(total(CONTEXTS, mode) - 20) for mode in MODES},
        **{context: scored.then(ranking(context)) for context in CONTEXTS},
    )
    sessions = sessions.with_columns(
        acce_raw=col("ac_raw") - col("ce_raw"),
        aero_raw=col("ae_raw") - col("ro_raw"),
        lfi_raw=320 - pl.sum_horizontal(col(f"{mode}_r") * col(f"{mode}_r") for mode in MODES),
    ).with_columns(lfi_raw=scored.then("lfi_raw"))
    sessions = sessions.with_columns(
        scored.then(answering_group(norms, scale)).alias(f"{scale}_group") for scale in SCALES
    )
    sessions = sessions.with_columns(
        *(at(norms.percentiles[scale], key(scale, col(f"{scale}_group"))).alias(f"{scale}_percentile") for scale in SCALES),
        truncated=sum(truncated(bit, scale) for bit, scale in enumerate(klsi4.PUBLISHED_RANGE)),
        published_scales=sum((col(f"{scale}_group") == 0).cast(pl.Int32) for scale in SCALES),
        kendall_w=at(shares, 320 - col("lfi_raw")),
        cell=73 * (col("acce_raw") + 36) + col("aero_raw") + 36,
    )
    return sessions.select(
        "session_id",
        "user_id",
        col("completed_at").dt.replace_time_zone("UTC"),
        "ok",
        error_stage=pl.when(~col("ok")).then(pl.lit("validate")),
        error_code=at(fault_codes, col("fault")),
        error=at(fault_sentences, col("fault")),
        **{f"{mode}_raw": short(col(f"{mode}_raw")) for mode in MODES},
        acce=short(col("acce_raw")),
        aero=short(col("aero_raw")),
        assimilation_accommodation=short(col("ac_raw") + col("ro_raw") - col("ae_raw") - col("ce_raw")),
        converging_diverging=short(col("ac_raw") + col("ae_raw") - col("ce_raw") - col("ro_raw")),
        balance_acce=short((col("acce_raw") - 9).abs()),
        balance_aero=short((col("aero_raw") - 6).abs()),
        style=at(style, col("cell")),
        backup_style=at(backup, col("cell")),
        intensity=short(col("acce_raw").abs() + col("aero_raw").abs()),
        kendall_w="kendall_w",
        lfi=at(shares, col("lfi_raw")),
        flexibility_level=pl.when(col("lfi_percentile") < 33.34)
        .then(pl.lit("low"))
        .when(col("lfi_percentile") <= 66.67)
        .then(pl.lit("moderate"))
        .when(col("lfi_percentile").is_not_null())
        .then(pl.lit("high")),
        context_styles=scored.then(pl.concat_list(at(regions, col(context)) for context in CONTEXTS)),
        **{f"{scale}_percentile": f"{scale}_percentile" for scale in SCALES},
        **{f"{scale}_norm_group": at(norms.names, col(f"{scale}_group")) for scale in SCALES},
        used_fallback=col("published_scales") > 0,
        truncated_scales=at(truncated_lists, col("truncated")),
        flags=at(flag_lists, flags()),
    )


def at(table, index):
    """The value of a series at an index."""
    return index.map_batches(table.gather, return_dtype=table.dtype, is_elementwise=True)


def short(score):
    return score.cast(pl.Int16)


def integer(rank):
    return pl.col(rank).cast(pl.Int32)


def is_permutation(item):
    """Four whole numbers are 1, 2, 3 and 4 if and only if they sum to 10 and their squares to 30."""
    ranks = [integer(f"{item}_{mode}") for mode in MODES]
    return (sum(ranks[1:], ranks[0]) == 10) & (sum((rank * rank for rank in ranks[1:]), ranks[0] * ranks[0]) == 30)


def first_faults(sessions):
    """The number of the first fault of each session that has one: only those are looked at."""
    frame = sessions.struct.unnest()
    bad = (~frame["ok"]).arg_true()
    faults = pl.Series([None], dtype=pl.Int32).new_from_index(0, len(frame))
    if len(bad):
        found = frame[bad].select(pl.coalesce(first_fault(*item) for item in enumerate(ITEMS)).cast(pl.Int32))
        faults = faults.scatter(bad, found.to_series())
    return faults


def first_fault(number, item):
    """The number of an item's first fault, or null."""
    ranks = [pl.col(f"{item}_{mode}") for mode in MODES]
    missing = [(rank.is_null(), place) for place, rank in enumerate(ranks)]
    outside = [(~rank.is_between(1, 4), place) for place, rank in enumerate(ranks, 4)]
    cases = [pl.when(fault).then(9 * number + place) for fault, place in [*missing, *outside, (~is_permutation(item), 8)]]
    return pl.coalesce(cases)


def age_band():
    """The place of the age band of the completed years between the date of birth and the day of the session."""
    birth, day = pl.col("date_of_birth").dt, pl.col("completed_at").dt
    before = 32 * day.month().cast(pl.Int32) + day.day() < 32 * birth.month().cast(pl.Int32) + birth.day()
    years = day.year() - birth.year() - before.cast(pl.Int32)
    places = pl.Series([sum(bound <= age for bound, _ in klsi4.AGE_BANDS) - 1 for age in range(66)], dtype=pl.Int32)
    return at(places, pl.when(years >= 0).then(pl.min_horizontal(years, 65)))


def total(items, mode):
    ranks = [integer(f"{item}_{mode}") for item in items]
    return sum(ranks[1:], ranks[0])


def ranking(context):
    return 16 * integer(f"{context}_ce") + 4 * integer(f"{context}_ro") + integer(f"{context}_ac")


def key(scale, group):
    lowest, count = SCALES[scale]
    return group * count + pl.col(f"{scale}_raw") - lowest


def answering_group(norms, scale):
    """The first group of the chain that holds the raw score, else the published table."""
    links = [pl.col(f"link{place}") for place in range(1, 6)]
    holds = [at(norms.percentiles[scale], key(scale, link)).is_not_null() for link in links]
    return pl.coalesce([*(pl.when(held).then(link) for held, link in zip(holds, links)), 0])


def truncated(bit, scale):
    lowest, highest = klsi4.PUBLISHED_RANGE[scale]
    return (~pl.col(f"{scale}_raw").is_between(lowest, highest)).cast(pl.Int32) * (1 << bit)


def flags():
    col = pl.col
    repeated = [sum((col(context) == col(one)).cast(pl.Int32) for context in CONTEXTS) for one in CONTEXTS[:3]]
    conditions = [
        col("acce_raw").is_in([5, 6, 14, 15]) | col("aero_raw").is_in([0, 1, 11, 12]),
        col("kendall_w") < 0.05,
        col("kendall_w") > 0.95,
        pl.any_horizontal(count >= 6 for count in repeated),
        col("published_scales").is_between(1, 6),
        col("truncated").bitwise_count_ones() >= 2,
    ]
    return sum(condition.cast(pl.Int32) * (1 << bit) for bit, condition in enumerate(conditions))


if __name__ == "__main__":
    klsi4.main(load)
