#!/usr/bin/env bash
# study.sh: the paper in small. Trains a grid of models from nothing, measures each, and draws the paper's tables and
# figures from what it measured: runs/study/results.csv, tables.md, PNG and SVG. docs/study.md says what they mean.
#
#   bash scripts/study.sh               two hours on two cores
#   bash scripts/study.sh -quick        a quarter of an hour, into runs/study-quick: fewer points, hardly trained
#   bash scripts/study.sh -list         the points and what each will take
#   bash scripts/study.sh -only NAME    this point alone; several times
#   bash scripts/study.sh -h            all options
#
# It may be stopped at any time: the same command goes on. A point is trained by one process on one core, as many at a
# time as there are cores; its numbers do not depend on that.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

# Beside the demo's texts, unless -quick: 51 MB of packages.
PACKAGES="anarchism postgresql-doc-15 python3.11-doc cataclysm-dda-data"
data=data/study

case " $* " in *" -h "* | *" -list "*) exec .venv/bin/python scripts/study.py "$@" ;; esac
bash scripts/setup.sh corpus
make -s -j"$(cores)" train_c3 c3 build/libc3text.so build/dev/make_random_checkpoint
bash data/get_tokenizer.sh
case " $* " in *" -quick "*) data=data/study/quick PACKAGES= ;; esac
if [ -z "$PACKAGES" ]; then
    step "texts"
    bash data/make_demo.sh
    mkdir -p $data/docs
    ln -sfn "$PWD"/data/corpus/{en,zh}.jsonl $data/docs/
elif [ ! -f $data/docs/done ]; then
    step "texts"
    bash data/make_demo.sh
    mkdir -p $data/unpacked $data/docs
    ln -sfn "$PWD"/data/cache/unpacked/* $data/unpacked/
    for p in $PACKAGES; do
        ls data/cache/"$p"_*.deb >/dev/null 2>&1 || (cd data/cache && apt-get download -q "$p") ||
            { warn "$p is not to be had here: its texts are left out"; continue; }
        dpkg-deb -x "$(ls data/cache/"$p"_*.deb | sort -V | tail -n 1)" $data/unpacked/"$p"
    done
    .venv/bin/python data/debian_texts.py $data/unpacked $data/docs -more
    touch $data/docs/done
fi
step "points"
exec .venv/bin/python scripts/study.py "$@"
