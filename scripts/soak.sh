#!/usr/bin/env bash
# Long runs, by hand: kill -9 at random moments, and memory over the pictures of a training. Needs what demo.sh made.
#
#   bash scripts/demo.sh && bash scripts/soak.sh [DEMO-OUTPUT]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-demo-output}
[ -f "$out/run/best.safetensors" ] || { echo "soak: no model in $out/run; run scripts/demo.sh first" >&2; exit 2; }
python=.venv/bin/python
echo "== memory over $(ls "$out/scenes/train" | wc -l) pictures"
"$python" scripts/soak.py memory "$out/scenes/train" --model "$out/run"
echo "== kill -9 at five random moments"
"$python" scripts/soak.py kill "$out/scenes/train" --model "$out/run"
