#!/bin/sh
# Writes the code made from proto/: rust/transport/src/generated and python/runferry/server/_generated.
# Both are committed. No protoc is needed: the compiler inside grpcio-tools writes the Python half and reads the schema for the Rust half.
#
# Use: proto/generate.sh [--check]     --check writes nothing and fails when a file is stale
# PYTHON names a Python that has grpcio-tools (default: python3).
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=${PYTHON:-python3}
committed=$root/python/runferry/server/_generated
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

case "${1-}" in
  '') check='' ;;
  --check) check=--check ;;
  *) echo "usage: proto/generate.sh [--check]" >&2; exit 2 ;;
esac

stale=0
"$python" -m grpc_tools.protoc --proto_path="$root/proto" --include_source_info --include_imports \
  --descriptor_set_out="$fresh/descriptors" runferry/v1/ingest.proto
# Not optimised: it runs for a moment, and is built once.
(cd "$root" && CARGO_PROFILE_DEV_OPT_LEVEL=0 cargo run --quiet -p runferry-codegen -- "$fresh/descriptors" $check) || stale=1

mkdir "$fresh/raw" "$fresh/package"
"$python" -m grpc_tools.protoc --proto_path="$root/proto" \
  --python_out="$fresh/raw" --pyi_out="$fresh/raw" --grpc_python_out="$fresh/raw" runferry/v1/ingest.proto
mark='# @generated from proto/ by proto/generate.sh. Do not edit.'
for file in "$fresh"/raw/runferry/v1/*; do
  # The package lies elsewhere than the schema: imports of generated siblings become relative.
  { echo "$mark"; sed 's/^from runferry\.v1 import /from . import /' "$file"; } > "$fresh/package/$(basename "$file")"
done
{ echo "$mark"; echo '"""Messages and service of the write door, as grpcio wants them (proto/runferry/v1/ingest.proto)."""'; } \
  > "$fresh/package/__init__.py"

if diff -r --exclude=__pycache__ "$committed" "$fresh/package" > "$fresh/diff" 2>&1; then
  :
elif [ -n "$check" ]; then
  echo "stale: python/runferry/server/_generated (run proto/generate.sh)" >&2
  head -n 40 "$fresh/diff" >&2
  stale=1
else
  rm -rf "$committed"
  cp -R "$fresh/package" "$committed"
fi
exit "$stale"
