#!/usr/bin/env bash
# demo.sh: from nothing to pages written back from their latents, on one machine, in a few minutes.
#
#   1 set-up   what is missing is installed (scripts/setup.sh says what)
#   2 build    ./train_c3 and ./c3
#   3 pages    English and Chinese texts from Debian packages, cut into pages of 24-64 tokens; whole documents held out
#   4 train    preset demo: 2 + 2 layers of width 128, vocabulary 4096, 16 latents a page: 4 text tokens a latent at most.
#              One rank a core. Pages grow from 10 tokens to whole over the first half of the steps (-len_warmup).
#   5 look     held-out pages, greedy decoding from the latents alone; figures; controls that must fail
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

run_dir=runs/demo
ranks=$(usable_cores 4)
pages_a_step=${DEMO_PAGES:-48}
steps=${DEMO_STEPS:-1600}

begin "1/5 set-up"
bash scripts/setup.sh demo
started=$SECONDS

begin "2/5 build"
make -s -j"$(nproc)"

begin "3/5 pages"
bash data/get_tokenizer.sh
bash data/make_demo.sh
for part in train val_en val_zh; do
    [ data/demo/${part}_00000.bin -nt data/demo/$part.jsonl ] ||
        ./c3 tokenize -tok data/qwen2.5/qwen.tiktoken -vocab 4096 -o data/demo/$part data/demo/$part.jsonl
done

begin "4/5 train: $ranks rank(s) of one core"
trained=$SECONDS
rm -rf $run_dir
launch "$ranks" ./train_c3 -preset demo -threads 1 \
    -data 'data/demo/train_*.bin' -val 'data/demo/val_en_*.bin,data/demo/val_zh_*.bin' \
    -b $((pages_a_step / ranks)) -g 1 -steps "$steps" -len_warmup 0.5 \
    -lr 3e-3 -warmup 100 -beta2 0.99 -dtype "$(demo_dtype)" \
    -val_every 400 -sample_every 800 -save_every 0 -o $run_dir
trained=$((SECONDS - trained))

begin "5/5 held-out pages"
for part in en zh; do
    ./c3 eval -m $run_dir data/demo/val_$part.jsonl -o $run_dir/eval_$part
done
for part in en zh; do
    head -n 3 data/demo/val_$part.jsonl | ./c3 reconstruct -m $run_dir -f -
done
./c3 reconstruct -m $run_dir -f data/demo/random.jsonl
if [ -x .venv/bin/python ]; then
    .venv/bin/python dev/plot.py $run_dir --eval $run_dir/eval_en $run_dir/eval_zh
fi

begin "done in $((SECONDS - started)) s without set-up, $trained s of it training"
cat <<TXT
Look next at
  $run_dir/eval_en/eval.txt, eval_zh/eval.txt   tables; pages.jsonl beside them holds every page
  $run_dir/loss.png, by_position.png            how the loss fell; where in a page errors stand
  ./c3 reconstruct -m $run_dir -f FILE          your own text (pages of at most 64 tokens; this model knows no longer ones)
  ./train_c3 -h                                 every option; README.md: the paper's run, your own pages
TXT
