#!/usr/bin/env bash
# test_python_door_oldest.sh: test_python_door.py with the oldest transformers that docs/python.md promises, which
# scripts/setup.sh test puts into .setup, on the PyTorch of .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
oldest=5.0.0
if [ ! -f .setup/transformers-$oldest.done ]; then
    echo "FAIL transformers $oldest is missing (hint: bash scripts/setup.sh test)"
    echo "0 passed, 1 failed"
    exit 1
fi
PYTHONPATH=$PWD/.setup/transformers-$oldest exec .venv/bin/python test/test_python_door.py $oldest
