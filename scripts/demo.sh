#!/usr/bin/env bash
# demo.sh: from nothing to pages written back from their latents, on one machine, in a few minutes.
#
#   1 set-up   what is missing is installed (scripts/setup.sh says what)
#   2 build    ./train_c3 and ./c3
#   3 pages    English and Chinese texts from Debian packages, cut into pages of 1-64 tokens (data/corpus.py); a little
#              German, code and numbers; whole works held out
#   4 train    preset demo: 2 + 2 layers of width 128, vocabulary 2048, 16 latents a page: up to 4 tokens a latent.
#              One rank a core, or one GPU. Pages grow from 10 tokens to whole over the first half of the steps (-len_warmup).
#   5 look     held-out pages, greedy decoding from the latents alone; figures; controls that must fail
#   6 try      shorter pages, other kinds of text, random characters, sentences as one would type them
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

run_dir=runs/demo
ranks=$(cores)
[ "$ranks" -le 4 ] || ranks=4 # more would leave too few pages a rank
command -v mpirun >/dev/null || ranks=1
[ "$(gpus)" = 0 ] || ranks=1 # two ranks never share a GPU, and one is plenty for a model of this size
pages=32 # a step
steps=6600
steps_total=6

step "set-up"
bash scripts/setup.sh demo
started=$SECONDS

step "build"
make -s -j"$(cores)"

step "pages"
bash data/get_tokenizer.sh
bash data/make_demo.sh
for part in val_en val_zh; do
    ./c3 tokenize -tok data/qwen2.5/qwen.tiktoken -vocab 2048 -o data/demo/$part data/demo/$part.jsonl
done

step "train, $ranks rank(s)"
mpi_environment
launcher=()
[ "$ranks" = 1 ] || launcher=(mpirun -np "$ranks")
rm -rf $run_dir
began=$SECONDS
run ${launcher[@]+"${launcher[@]}"} ./train_c3 -preset demo -threads 1 -o $run_dir \
    -data 'data/demo/train_*.bin' -val 'data/demo/val_en_*.bin,data/demo/val_zh_*.bin' \
    -b $((pages / ranks)) -g 1 -steps $steps -len_warmup 0.5 -lr 1.2e-3 -schedule linear -warmup 200 -beta2 0.95 \
    -val_every 800 -sample_every 2800 -samples 1 -save_every 0
trained=$((SECONDS - began))

step "held-out pages"
for part in en zh; do
    run ./c3 eval -m $run_dir data/demo/val_$part.jsonl -o $run_dir/eval_$part
    run .venv/bin/python scripts/score.py $run_dir/eval_$part
done
# Two pages of each language as they come, then the two that came back worst.
show='import json, sys
pages = [json.loads(line) for line in open(sys.argv[1])]
for p in pages[:2] + sorted(pages, key=lambda p: p["char_precision"])[:2]:
    print(json.dumps({"id": p["id"], "text": p["text"]}))'
for part in en zh; do
    say
    say "$part: the first two held-out pages, and the two that came back worst of all:"
    say
    python3 -c "$show" $run_dir/eval_$part/pages.jsonl | ./c3 reconstruct -m $run_dir -f - 2>/dev/null
done
python3 -c 'import json
made = json.load(open("data/demo/manifest.json"))
print("No run of 13 tokens is both held out and trained on: %d pages that shared one were left out of training." %
      made["stages"]["held-out overlap"]["held_out_overlap"][1])'

step "other pages, and sentences as one types them"
look() { ./c3 eval -m $run_dir "$2" -o $run_dir/more/$1 -no_controls "${@:3}" >/dev/null 2>&1 || die "c3 eval failed on $2"; }
look short data/demo/val_short.jsonl
look other data/demo/val_other.jsonl
look random data/demo/val_en.jsonl -perturb random
look sentences data/sentences.jsonl
python3 scripts/demo_table.py $run_dir
say "Type one of your own; this model has learned pages of 1 to 64 tokens, some 170 characters of English:"
say
say "  echo \"My sister collects old maps of Lisbon.\" | ./c3 reconstruct -m $run_dir -f -"
say
echo "My sister collects old maps of Lisbon." | ./c3 reconstruct -m $run_dir -f - 2>/dev/null
.venv/bin/python scripts/plot.py $run_dir
.venv/bin/python scripts/report.py $run_dir

cat <<TXT

Done in $(minutes $((SECONDS - started))) after set-up, $(minutes $trained) of it training. Look next at
  $run_dir/report.html                          all of it in a browser: curves, tables, pages with their errors marked
  $run_dir/eval_en/, eval_zh/                   every page and its numbers; worst.txt: what was lost and written
  $run_dir/*.png                                how the loss fell; where in a page errors stand
  echo "..." | ./c3 reconstruct -m $run_dir -f -   your own text: 1 to 64 tokens
  ./train_c3 -h                                 every option; README.md has the paper's run and your own pages
TXT
