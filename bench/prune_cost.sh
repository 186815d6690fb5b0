#!/bin/bash
# What one more halving costs: half of a student's heads, half of its layers, half of its vocabulary, and all of it, for the
# student itself (held-out text), for one that was fine-tuned on SST-2, and for the pruned students fine-tuned on it.
# Resumable: what is there is not pruned or trained again. After bench/evidence.sh.
#
#   DATA=FOLDER RUNS=runs/real CORPUS=corpus/real bench/prune_cost.sh [STEP ...]     steps: student task tuned tables
set -euo pipefail
cd "$(dirname "$0")/.."
[ ! -x .venv/bin/python ] || PATH=$PWD/.venv/bin:$PATH

DATA=${DATA:?a folder with glue/SST-2}
CORPUS=${CORPUS:-corpus/real}             # wiki and heldout, prepared
RUNS=${RUNS:-runs/real}
STUDENT=${STUDENT:-$RUNS/longer/student}
TUNED=${TUNED:-$RUNS/tasks/longer}     # its results of finetune.py
OUT=${OUT:-$RUNS/pruned}
SEEDS=${SEEDS:-3}
SWEEP=${SWEEP:-0 0.25 0.5 0.75}           # shares of heads
FLAGS=${FLAGS:---sentences 256}           # more for prune.py: inputs for latency
RESULTS=${RESULTS:-bench/RESULTS.md}
export OMP_NUM_THREADS=1

VARIANTS=(heads layers vocabulary together)

# Of the folder in $1: layers or tokens, halved.
half_layers() { python -c "
import sys; from model.hub import read_config; from model.student import default_layers; from pathlib import Path
print(*default_layers(read_config(Path(sys.argv[1]))[0].num_layers))" "$1"; }
half_tokens() { python -c "
import sys; from model.hub import read_config; from pathlib import Path
print(read_config(Path(sys.argv[1]))[0].vocab_size // 2)" "$1"; }

# VARIANT MODEL NAME DATA TRIM: everything that this variant takes away.
prune() {
  local variant=$1 model=$2 name=$3 data=$4 trim=$5 flags=()
  [ ! -e "$OUT/$name/$variant/pruning.json" ] || return 0
  case $variant in heads | together) flags+=(--prune_heads 0.5) ;; esac
  # shellcheck disable=SC2207  # numbers
  case $variant in layers | together) flags+=(--layers $(half_layers "$model")) ;; esac
  # shellcheck disable=SC2206  # several flags
  case $variant in vocabulary | together) flags+=(--trim_vocab $trim) ;; esac
  # shellcheck disable=SC2206
  [ "$variant" != heads ] || flags+=(--sweep $SWEEP)
  mkdir -p "$OUT/$name"
  # shellcheck disable=SC2086
  python prune.py --model "$model" --data "$data" "${flags[@]}" $FLAGS --output "$OUT/$name/$variant"
}

student() {
  local variant
  for variant in "${VARIANTS[@]}"; do
    prune "$variant" "$STUDENT" student "$CORPUS/heldout" "$CORPUS/wiki --vocab_size $(half_tokens "$STUDENT")"
  done
}

# A fine-tuned model needs the words of its task.
task() {
  local variant
  mkdir -p "$OUT"
  awk -F '\t' 'NR > 1 { print $1 "\n" }' "$DATA/glue/SST-2/train.tsv" > "$OUT/sst2.txt"
  for variant in "${VARIANTS[@]}"; do
    prune "$variant" "$TUNED/sst2/model" sst2 "$DATA" "$OUT/sst2.txt"
  done
}

# As bench/evidence.sh fine-tunes the whole student.
tuned() {
  local variant
  for variant in "${VARIANTS[@]}"; do
    python finetune.py --model "$OUT/student/$variant" --task sst2 --data "$DATA" --seeds "$SEEDS" --batch_sizes 16 \
      --learning_rates 1e-4 --epochs 4 --train_examples 4000 --output "$OUT/tuned/$variant"
  done
}

tables() {
  local name
  for name in student sst2; do
    # shellcheck disable=SC2046  # names have no spaces
    python -m pruning.table $(folders "$OUT/$name") --append "$RESULTS"
  done
  # shellcheck disable=SC2046
  python -m evaluation.table --tasks sst2 --teacher "whole=$TUNED" --student $(folders "$OUT/tuned") --append "$RESULTS"
}

folders() { for variant in "${VARIANTS[@]}"; do echo "$variant=$1/$variant"; done; }

for step in "${@:-student task tuned tables}"; do
  for each in $step; do "$each"; done
done
