#!/usr/bin/env bash
# Writes link/order.txt: the functions that jobs run, those of most jobs first.
#
# Symbols change with the compiler, with dependencies and, a few of a hundred, with the code: run this after an update of the
# first two, and before a release. It needs valgrind and nm, and takes two minutes once the program is built.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

messages="$(cargo build --release --locked --message-format=json-render-diagnostics)"
program="$(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' <<<"$messages" | tail -1)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

"$program" generate norms --groups 1400 --to "$work/norms.csv"
"$program" norms import "$work/norms.csv" --to "$work/norms"
for layout in wide packed; do
    "$program" generate sessions --rows 300000 --bad-fraction 0.01 --layout "$layout" --to "$work/$layout.parquet"
done
for format in csv ndjson; do
    "$program" generate sessions --rows 20000 --bad-fraction 0.01 --to "$work/wide.$format"
done

# job INPUT TARGET ARGUMENTS...: the functions that scoring runs, into a file of their own.
job() {
    valgrind --quiet --tool=callgrind --demangle=no --compress-strings=no --callgrind-out-file="$work/calls" \
        "$program" score "$work/$1" --norms "$work/norms" --to "$2" "${@:3}" --progress off >"$work/stdout"
    sed -n "s/^fn=//p" "$work/calls" | sed "s/'[0-9]*$//" | sort -u >"$(mktemp "$work/XXXXXX.job")"
}
job wide.parquet "$work/wide.parquet.out" --format parquet
job packed.parquet "$work/packed.parquet.out" --format parquet
job wide.parquet "$work/constrained.out" --format parquet --profile memory-constrained
job packed.parquet "$work/table/"
job wide.csv "$work/csv.out" --format parquet
job wide.ndjson -

# Of the same number of jobs, and within a job, by name.
nm "$program" | awk '$2 ~ /[tTwW]/ { print $3 }' | sort -u >"$work/symbols"
cat "$work"/*.job | sort | uniq -c | sort -k1,1nr -k2,2 | awk '{ print $2 }' |
    awk 'NR == FNR { is_ours[$1] = 1; next } $1 in is_ours' "$work/symbols" - >link/order.txt
printf '%s functions of %s\n' "$(wc -l <link/order.txt)" "$(wc -l <"$work/symbols")"
