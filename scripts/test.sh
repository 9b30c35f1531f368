#!/usr/bin/env bash
# Lint, types, tests with coverage: what has to pass before a change is kept.
#
#   bash scripts/test.sh [-- PYTEST ARGUMENTS]     with arguments only those tests run, without the coverage bar
#   bash scripts/test.sh --oldest [-- …]           the network's tests with the oldest torch that is supported
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

oldest=no
extra=()
while [ $# -gt 0 ]; do
    case $1 in
        --oldest) oldest=yes ;;
        --)
            shift
            extra=("$@")
            break
            ;;
        *)
            echo "test: found $1, expected --oldest, or -- and arguments for pytest" >&2
            exit 2
            ;;
    esac
    shift
done

# tests run in two processes; more threads than cores would only slow both down
export OMP_NUM_THREADS=1

if [ "$oldest" = yes ]; then
    mkdir -p build
    grep -v -E '^(torch|torchvision|triton|setuptools)==' constraints.txt >build/constraints-oldest.txt
    printf '%s\n' 'torch==2.11.*' 'torchvision==0.26.*' 'triton==3.6.*' >>build/constraints-oldest.txt
    bash scripts/install.sh .venv-oldest build/constraints-oldest.txt
    exec .venv-oldest/bin/python -m pytest tests/models tests/prediction/test_compiled.py -n 2 --dist worksteal -q "${extra[@]}"
fi

bash scripts/install.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy -p segcli
if [ ${#extra[@]} -gt 0 ]; then
    exec .venv/bin/python -m pytest "${extra[@]}"
fi
.venv/bin/python -m pytest -q -n 2 --dist worksteal --durations=10 --cov --cov-report=term --cov-fail-under=90
