#!/bin/bash
# What a student is worth, measured on this machine: a teacher into students of half its layers, distilled and from a random
# start; each fine-tuned on the tasks whose data is here; second distillations; the tables, and size and speed.
# Resumable: what is there is not run again. Subsets are named in the tables.
#
#   TEACHER=FOLDER DATA=FOLDER bench/evidence.sh [STEP ...]     steps: corpus students longer tasks twice tables
set -euo pipefail
cd "$(dirname "$0")/.."
[ ! -x .venv/bin/python ] || PATH=$PWD/.venv/bin:$PATH

DATA=${DATA:?a folder with wiki/, books/, glue/, imdb/ and squad/}
TEACHER=${TEACHER:?the folder of a teacher}
CORPUS=${CORPUS:-corpus/real}
RUNS=${RUNS:-runs/real}
UPDATES=${UPDATES:-200}                   # of 64 sequences of up to 128 tokens
SEEDS=${SEEDS:-3}
TASKS=${TASKS:-wnli rte cola stsb sst2 imdb squad}
RESULTS=${RESULTS:-bench/RESULTS.md}
export DATA TEACHER OMP_NUM_THREADS=1      # two jobs at a time, a core each

STUDENTS=(distilled random)
declare -A START=([distilled]="" [random]="--student_init random")

corpus() {
  [ -e "$CORPUS/wiki.json" ] || python -m data.prepare --input "$DATA"/wiki/en-2018-0[0-9].jsonl.xz --tokenizer "$TEACHER" --output "$CORPUS/wiki"
  [ -e "$CORPUS/books.json" ] || python -m data.prepare --input "$DATA"/books/*.xz --tokenizer "$TEACHER" --output "$CORPUS/books"
  [ -e "$CORPUS/heldout.json" ] || python -m data.prepare --input "$DATA"/wiki/en-2018-heldout.jsonl.xz --tokenizer "$TEACHER" --output "$CORPUS/heldout"
}

students() {
  local name core=0 pids=()
  for name in "${STUDENTS[@]}"; do
    # A run takes all cores that it may use: two would wait for each other.
    # shellcheck disable=SC2086  # flags
    taskset -c $core bench/evidence.sh distil "$name" 1 ${START[$name]} & pids+=($!)
    core=$((core + 1))
  done
  local code=0 pid
  for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
  return $code
}

longer() {  # three times as many tokens, on two ranks
  UPDATES=$((3 * UPDATES)) distil longer 2
}

distil() {  # NAME RANKS [FLAGS]
  local name=$1 ranks=$2; shift 2
  [ ! -e "$RUNS/$name/student" ] || return 0
  mkdir -p "$RUNS"
  torchrun --standalone --nproc_per_node "$ranks" train.py --ds_config ds_configs/zero2_cpu.json --teacher "$TEACHER" \
    --data "$CORPUS/wiki" "$CORPUS/books" --eval_data "$CORPUS/heldout" --max_length 128 --max_updates "$UPDATES" \
    --eval_every $((UPDATES / 5)) --eval_sequences 256 --log_every 10 --checkpoint_every 100 --output "$RUNS/$name" --resume "$@" \
    > "$RUNS/$name.log" 2>&1
}

# One model on one task; one cell of the grid published for compact models, the same for all: the grid is 20 times as much.
tune() {  # NAME MODEL TASK [FLAGS]; without a model it is made of --teacher
  local name=$1 model=$2 task=$3; shift 3
  python finetune.py ${model:+--model "$model"} --task "$task" --data "$DATA" --seeds "$SEEDS" --output "$RUNS/tasks/$name" \
    --batch_sizes 16 --epochs 4 "$@"
}

flags_of() {
  case $1 in
    cola) echo --train_examples 4000 ;;
    sst2) echo --train_examples 4000 ;;
    imdb) echo --max_length 128 --train_examples 1000 --eval_examples 1000 ;;
    squad) echo --max_length 256 --train_data "$DATA/squad/train-v1.1-prefix.json" --eval_examples 1000 --epochs 3 ;;
    *) echo ;;
  esac
}

tasks() {
  local task name
  for task in $TASKS; do
    for name in distilled longer random teacher; do echo "$name $task"; done
  done | xargs -P 2 -L 1 bench/evidence.sh one
}

one() {  # NAME TASK
  local model=$RUNS/$1/student rates=1e-4
  [ "$1" != teacher ] || model=$TEACHER
  [ "$1 $2" != "teacher squad" ] || rates=5e-5
  # shellcheck disable=SC2046
  tune "$1" "$model" "$2" $(flags_of "$2") --learning_rates $rates
}

# The longer distilled student once more, taught by the fine-tuned teacher; every other layer of that teacher, taught and by the labels
# alone; what was never pre-trained.
twice() {
  printf '%s\n' "twice squad" "halved squad" "halved_alone squad" "twice sst2" "halved sst2" "halved_alone sst2" \
    "unpretrained sst2" "bilstm sst2" | xargs -P 2 -L 1 bench/evidence.sh taught
}

taught() {  # NAME TASK
  local model=$RUNS/longer/student init=folder rates=1e-4 weights=()
  case $1 in
    halved) model="" ;;
    halved_alone) model="" weights=(--distillation_weight 0 --task_weight 1) ;;
    unpretrained) init=random ;;
    bilstm) model=bilstm rates=1e-3 ;;  # of a recurrent network; at 1e-4 it learns little
  esac
  # shellcheck disable=SC2046
  tune "$1" "$model" "$2" --init $init --teacher "$RUNS/tasks/teacher/$2/model" $(flags_of "$2") \
    --learning_rates $rates "${weights[@]}"
}

tables() {
  local results=$RUNS/tasks
  python -m evaluation.table --teacher "$results/teacher" --append "$RESULTS" --student \
    "distilled=$results/distilled" "longer=$results/longer" "random=$results/random"
  python -m evaluation.table --tasks squad sst2 --teacher "$results/teacher" --append "$RESULTS" --student \
    "once=$results/longer" "twice=$results/twice" "halved=$results/halved" \
    "halved_alone=$results/halved_alone" "unpretrained=$results/unpretrained" "bilstm=$results/bilstm"
  python -m evaluation.speed --models "teacher=$results/teacher/stsb/model" "student=$results/longer/stsb/model" \
    --data "$DATA/glue/STS-B/sts-dev.csv" --append "$RESULTS"
}

for step in "${@:-corpus students longer tasks twice tables}"; do
  case $step in
    one | taught | distil) "$@"; break ;;
    *) for each in $step; do "$each"; done ;;
  esac
done
