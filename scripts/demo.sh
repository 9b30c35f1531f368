#!/usr/bin/env bash
# The whole job on a fresh machine: install, make data, train, evaluate, predict a folder, draw pictures and a video.
#
#   bash scripts/demo.sh [OUT]        OUT: where results go, ./demo-output by default
#
# Takes about ten minutes on two cores, most of it training. Run again, it starts anew in OUT.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-demo-output}
started=$SECONDS

say() { printf '\n== %s (after %d s)\n' "$1" "$((SECONDS - started))"; }

say "installing into .venv"
bash scripts/install.sh
segcli=.venv/bin/segcli
mkdir -p "$out"

say "making 300 synthetic pictures"
"$segcli" data synth "$out/scenes" --images 300 --seed 0 --overwrite
"$segcli" data check "$out/scenes/val.json"

say "training mask-rcnn-nano from random weights"
"$segcli" train "$out/scenes/train.json" --val "$out/scenes/val.json" --model mask-rcnn-nano \
    --min-size 256 --max-size 320 --steps "${DEMO_STEPS:-380}" --eval-every 5 --output "$out/run" --overwrite

say "evaluating the best weights"
"$segcli" eval "$out/scenes/val.json" --model "$out/run" --output "$out/scores" --overwrite

say "predicting over a folder"
"$segcli" predict folder "$out/scenes/val" --model "$out/run" --output "$out/predictions" \
    --overlays --masks --csv --overwrite

say "drawing a video"
.venv/bin/python scripts/make_video.py "$out/scenes/val" "$out/scenes.mp4"
"$segcli" overlay video "$out/scenes.mp4" --model "$out/run" --output "$out/scenes_overlay.mp4" --overwrite

say "done"
.venv/bin/python scripts/show_results.py "$out"
