#!/usr/bin/env bash
# Everything that only a machine with an NVIDIA GPU can tell: correctness, speed, launch parameters, training.
#
#   bash scripts/gpu_check.sh [--rehearse] [--only STEP …] [--list]      under ten minutes on an H200
#
# Writes gpu.json and a log per step to ${OUT:-build/gpu}; gpu.json is what docs/benchmarks/ holds, one file per GPU.
# Needs torch, torchvision, triton, pytest and what segcli itself needs; no network, and segcli need not be installed.
# What the machine lacks and is pure Python may lie in .whl/ (pip download --no-deps -d .whl tomli-w): it is used as it is.
# --rehearse: the same steps at tiny sizes on the CPU in Triton's interpreter, into rehearsal.json; it measures nothing.
# PYTHON names the interpreter; by default the checkout's own .venv, else python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${OUT:-build/gpu}
python=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ]; then
    python=.venv/bin/python
fi
mkdir -p "$out"
packages=$PWD
if [ ! -f segcli/models/__init__.py ]; then
    # a checkout without links: the network lies in models/ and is imported as segcli.models
    packages=$(cd "$out" && pwd)/packages
    rm -rf "$packages"
    mkdir -p "$packages/segcli"
    for entry in "$PWD"/segcli/*; do
        ln -s "$entry" "$packages/segcli/"
    done
    ln -sfn "$PWD/models" "$packages/segcli/models"
    export PYTHONSAFEPATH=1 # else the working directory's segcli, which lacks models, comes first
fi
for wheel in "$PWD"/.whl/*-none-any.whl; do
    [ -f "$wheel" ] && packages=$packages:$wheel
done
export PYTHONPATH=$packages:$PWD/scripts${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
exec "$python" scripts/gpu_check.py --output "$out" "$@"
