#!/usr/bin/env bash
# get_models.sh: the two models of the paper's run, from the Hugging Face hub into models/.
#
#   bash scripts/get_models.sh
#
#   Qwen/Qwen2.5-1.5B   about 3.1 GB   Apache-2.0
#   Qwen/Qwen2.5-3B     about 6.2 GB   Qwen research licence: no commercial use
#
# The first call resolves the branch `main` to a commit and keeps it, with the files' checksums, in SOURCE.json; later
# calls verify, and fetch what is missing of that commit. REVISION=HASH takes another commit, HF_ENDPOINT another hub.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

python=.venv/bin/python
[ -x $python ] || python=python3
for name in Qwen2.5-1.5B Qwen2.5-3B; do
    run $python scripts/fetch_hub.py "Qwen/$name" "${MODELS:-models}/$name" -revision "${REVISION:-main}" \
        -files '*.safetensors,*.json,merges.txt,LICENSE'
done
