#!/bin/sh
# Names what is missing on this machine, with the line that installs it, before anything fails half-way.
set -u
python="${PYTHON:-python3}"
missing=0
lacks() {
  echo "missing: $1 - install it with: $2" >&2
  missing=1
}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
  lacks "Python 3.10 or newer (as $python)" "apt-get install python3 python3-venv"
elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
  lacks "Python's venv module" "apt-get install python3-venv"
fi
command -v cargo >/dev/null 2>&1 || lacks "Rust 1.88 or newer" "apt-get install rustup && rustup default stable"
node_major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/')
[ "${node_major:-0}" -ge 20 ] || lacks "Node.js 20 or newer" "apt-get install nodejs npm"
command -v npm >/dev/null 2>&1 || lacks "npm" "apt-get install npm"
command -v cc >/dev/null 2>&1 || lacks "a C compiler (for zstd)" "apt-get install build-essential"
exit $missing
