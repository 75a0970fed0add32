#!/bin/sh
# Fuzzes the readers of foreign bytes: each target, or the one named, for SECONDS_EACH (default 60), or all together as often as
# RUNFERRY_EFFORT_FUZZ_RUNS says. Needs nightly Rust and cargo-fuzz; without them it ends with 77: not run.
#
# Of a count the targets get shares by how fast they are, so that the slow ones (with the address sanitizer) do not take hours. With RUNFERRY_RESULTS a line of JSON for each target is
# appended there, as by tests/support/effort.py.
set -eu
cd "$(dirname "$0")"
seconds="${SECONDS_EACH:-60}"
runs="${RUNFERRY_EFFORT_FUZZ_RUNS:-}"
if ! rustup toolchain list 2>/dev/null | grep -q '^nightly'; then
  echo "not run: fuzzing needs nightly Rust (rustup toolchain install nightly)"
  exit 77
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
  echo "not run: fuzzing needs cargo-fuzz (cargo install cargo-fuzz)"
  exit 77
fi

# Target, share of a count in percent, sanitizer: where C code (zstd) reads the bytes the address sanitizer watches it. The rest is safe Rust.
TARGETS="
frame_decode 15 none
payload_read 2 address
block_decode 13 none
doc_decode 17 none
journal_open 6 none
successor_read 13 none
ring_orphan 27 none
entries_pack 3 none engine
chunk_decode 1 address
frames_merge 3 none
"
failed=""
seen=$(mktemp)
found=""
trap 'rm -rf "$seen" "$found"' EXIT

fuzz() { # target share sanitizer feature
  if [ -n "$runs" ]; then bound="-runs=$((runs * $2 / 100 + 1))"; else bound="-max_total_time=$seconds"; fi
  # New inputs go to a scratch folder: the corpus in the repository stays small.
  found=$(mktemp -d)
  outcome=passed
  { cargo +nightly fuzz run --fuzz-dir . -O --sanitizer "$3" ${4:+--features "$4"} "$1" "$found" "corpus/$1" -- "$bound" -rss_limit_mb=1024 -print_final_stats=1 2>&1 || echo "crashed: $1"; } \
    | tee "$seen" | grep -vE '^#|^ *(Compiling|Finished|Running|Fresh)'
  rm -rf "$found"
  if grep -q "^crashed: $1\$" "$seen"; then outcome=crashed; failed="$failed $1"; fi
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$seen" | tail -1)
  speed=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$seen" | tail -1)
  line="{\"executions\": ${executions:-0}, \"executions_per_s\": ${speed:-0}, \"outcome\": \"$outcome\", \"question\": \"do any bytes crash a reader?\", \"target\": \"$1\"}"
  echo "$line"
  if [ -n "${RUNFERRY_RESULTS:-}" ]; then echo "$line" >>"$RUNFERRY_RESULTS"; fi
}

while read -r target share sanitizer feature; do
  if [ -n "$target" ] && { [ -z "${1:-}" ] || [ "$1" = "$target" ]; }; then fuzz "$target" "$share" "$sanitizer" "$feature"; fi
done <<EOF
$TARGETS
EOF
if [ -n "$failed" ]; then
  echo "crashed:$failed (the input is in rust/fuzz/artifacts)"
  exit 1
fi
