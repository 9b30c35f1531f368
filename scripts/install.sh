#!/usr/bin/env bash
# Makes a virtual environment and installs segcli into it, editable, at the pinned versions. Quick when nothing changed.
#
#   bash scripts/install.sh [VENV [CONSTRAINTS]]        default: .venv constraints.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${1:-.venv}
constraints=${2:-constraints.txt}

fail() {
    echo "install: $*" >&2
    exit 1
}

if [ ! -x "$venv/bin/python" ]; then
    command -v python3 >/dev/null || fail "python3 not found; install Python 3.11 or newer"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || fail "python3 is $(python3 -V 2>&1), expected 3.11 or newer; put a newer one first in PATH"
    if ! python3 -m venv "$venv" >/dev/null; then
        rm -rf "$venv"
        fail "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"
    fi
fi

# pip looks at every requirement each time; two files decide whether there is anything to do
now=$(cat pyproject.toml "$constraints" | "$venv/bin/python" -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
stamp="$venv/.segcli-installed"
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$now" ]; then
    echo "install: into $venv, with $constraints" >&2
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check -c "$constraints" -e '.[dev,openvino,tensorboard]' \
        || fail "pip could not install the package into $venv; its reason is above"
    echo "$now" >"$stamp"
fi

# opencv-python needs libGL and GLib of the system, which bare machines lack
if ! "$venv/bin/python" -c 'import cv2' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "install: system libraries for OpenCV" >&2
        { apt-get update -qq && apt-get install -y -qq libgl1 libglib2.0-0; } >/dev/null \
            || fail "apt-get could not install libgl1 and libglib2.0-0, which OpenCV needs"
    fi
    reason=$("$venv/bin/python" -c 'import cv2' 2>&1 | tail -n 1) || true
    [ -z "$reason" ] || fail "OpenCV cannot be imported ($reason); install libGL and GLib (Debian: libgl1 libglib2.0-0)"
fi
