#!/bin/sh
# Fuzzes the readers of foreign bytes: each target, or the one named, for SECONDS (default 60). Needs nightly Rust and cargo-fuzz.
set -eu
cd "$(dirname "$0")"
seconds="${SECONDS_EACH:-60}"
if ! rustup toolchain list 2>/dev/null | grep -q '^nightly'; then
  echo "not run: fuzzing needs nightly Rust (rustup toolchain install nightly)"
  exit 0
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
  echo "not run: fuzzing needs cargo-fuzz (cargo install cargo-fuzz)"
  exit 0
fi
for target in ${1:-frame_decode journal_open block_decode}; do
  # New inputs go to a scratch folder: the corpus in the repository stays small.
  found=$(mktemp -d)
  cargo +nightly fuzz run --fuzz-dir . -O "$target" "$found" "corpus/$target" -- -max_total_time="$seconds" -rss_limit_mb=1024 -print_final_stats=1
  rm -rf "$found"
done
