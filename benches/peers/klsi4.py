"""The KLSI 4.0 as small tables that both peer scripts look things up in, and what their command lines have in common.

Every table is a list indexed by a small integer, so that an engine needs no branches per row. What a table says is in
src/instrument/klsi4.toml and in the modules of src/scoring.
"""

import argparse
import csv
import json
import os
import resource
import time

MODES = ("ce", "ro", "ac", "ae")
STYLE_ITEMS = [f"q{item:02}" for item in range(1, 13)]
CONTEXTS = [f"ctx{item:02}" for item in range(1, 9)]
ITEMS = STYLE_ITEMS + CONTEXTS

# Per scale: the lowest raw score twelve items and eight contexts allow, and how many there are.
SCALES = {
    "ce": (12, 37),
    "ro": (12, 37),
    "ac": (12, 37),
    "ae": (12, 37),
    "acce": (-36, 73),
    "aero": (-36, 73),
    "lfi": (0, 321),
}
# Raw scores that the published norms span. LFI is never truncated.
PUBLISHED_RANGE = {"ce": (11, 44), "ro": (11, 44), "ac": (11, 44), "ae": (11, 44), "acce": (-29, 33), "aero": (-33, 33)}

AGE_BANDS = [(0, "<19"), (19, "19-24"), (25, "25-34"), (35, "35-44"), (45, "45-54"), (55, "55-64"), (65, ">64")]

GRID = (
    ("imagining", "experiencing", "initiating"),
    ("reflecting", "balancing", "acting"),
    ("analyzing", "thinking", "deciding"),
)
ACCE_MIDDLE, AERO_MIDDLE = (6, 14), (1, 11)

REGIONS = {
    "experiencing": "4312 4213",
    "imagining": "4321 3412",
    "reflecting": "3421 2431",
    "analyzing": "1432 2341",
    "thinking": "1243 1342",
    "deciding": "2143 1234",
    "acting": "2134 3124",
    "initiating": "4123 3214",
    "balancing": "4231 4132 3241 3142 1423 1324 2413 2314",
}

FLAGS = (
    "near_style_boundary",
    "low_w",
    "high_w",
    "repeated_context_pattern",
    "mixed_provenance",
    "excessive_truncation",
)


def _distance(value, low, high):
    return max(low - value, 0, value - high)


def _windows(middle):
    return ((-36, middle[0] - 1), middle, (middle[1] + 1, 36))


def styles():
    """Style and backup style by 73·(ACCE + 36) + AERO + 36."""
    style, backup = [], []
    for acce in range(-36, 37):
        for aero in range(-36, 37):
            by_distance = sorted(
                (_distance(acce, *acce_window) + _distance(aero, *aero_window), GRID[row][column])
                for row, acce_window in enumerate(_windows(ACCE_MIDDLE))
                for column, aero_window in enumerate(_windows(AERO_MIDDLE))
            )
            style.append(by_distance[0][1])
            backup.append(by_distance[1][1])
    return style, backup


def regions():
    """The region of a context by 16·CE + 4·RO + AC, which differs for each of the 24 rankings."""
    names = [None] * (16 * 4 + 4 * 4 + 4 + 1)
    for name, rankings in REGIONS.items():
        for ce, ro, ac, _ in (map(int, ranking) for ranking in rankings.split()):
            index = 16 * ce + 4 * ro + ac
            assert names[index] is None
            names[index] = name
    return names


def faults():
    """Code and sentence of a fault by 9·item + place: a missing rank by mode, then one out of range by mode, then a repeat."""
    codes, sentences = [], []
    for item in ITEMS:
        for mode in MODES:
            codes.append("missing_rank")
            sentences.append(f"the rank of {mode.upper()} in item {item} is missing")
        for mode in MODES:
            codes.append("rank_out_of_range")
            sentences.append(f"the rank of {mode.upper()} in item {item} is not a whole number from 1 to 4")
        codes.append("not_a_permutation")
        sentences.append(f"the ranks of item {item} are not 1, 2, 3 and 4 once each")
    return codes, sentences


def subsets(names):
    """Lists of names by bit set, the lowest bit first."""
    return [[name for bit, name in enumerate(names) if bits >> bit & 1] for bits in range(1 << len(names))]


def published(path):
    """Per scale the published percentile of every raw score: that of the nearest lower one listed, or of the lowest."""
    listed = {scale: {} for scale in SCALES}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            listed[row["scale"].lower()][int(row["raw_score"])] = float(row["percentile"])
    answers = {}
    for scale, (lowest, count) in SCALES.items():
        rows = sorted(listed[scale].items())
        answers[scale] = [
            next((percentile for held, percentile in reversed(rows) if held <= raw), rows[0][1])
            for raw in range(lowest, lowest + count)
        ]
    return answers


def output_columns():
    """The columns of a result, in order."""
    return (
        ["session_id", "user_id", "completed_at", "ok", "error_stage", "error_code", "error"]
        + [f"{mode}_raw" for mode in MODES]
        + ["acce", "aero", "assimilation_accommodation", "converging_diverging", "balance_acce", "balance_aero"]
        + ["style", "backup_style", "intensity", "kendall_w", "lfi", "flexibility_level", "context_styles"]
        + [f"{scale}_percentile" for scale in SCALES]
        + [f"{scale}_norm_group" for scale in SCALES]
        + ["used_fallback", "truncated_scales", "flags"]
    )


def main(load):
    """Parses the command line, scores, and prints the figures that the bench reads.

    `load` imports the engine, which is not timed, and returns what scores.
    """
    parser = argparse.ArgumentParser()
    for name in ("sessions", "norms", "published", "to"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    score = load(arguments)
    started, cpu_started = time.perf_counter(), time.process_time()
    rows = score()
    figures = {
        "rows": rows,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "bytes_written": os.path.getsize(arguments.to),
    }
    print(json.dumps(figures))
