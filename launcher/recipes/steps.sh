# What the recipes share: the text is prepared, then train.py distils. Sourced by one of them, which has set NAME and the
# defaults of TEXT and TEACHER; flags of train.py may follow.
#
# Every line below may be set from the environment; paths count from the repository's root. A step whose product is there is
# skipped, and training goes on where it was: start it again whatever happened. The exit code is that of the step that ended
# it (launcher/README.md has the list).
set -euo pipefail

HELDOUT=${HELDOUT:-}                 # text that is not in TEXT, to score on while training; none: no scores
CORPUS=${CORPUS:-corpus/$NAME}
OUTPUT=${OUTPUT:-runs/$NAME}
GPUS=${GPUS:-8}
DS_CONFIG=${DS_CONFIG:-ds_configs/zero2.json}  # 4,096 sequences an update, AdamW, 5e-4, (0.9, 0.98), eps 1e-6, clip 5
MAX_LENGTH=${MAX_LENGTH:-512}
EPOCHS=${EPOCHS:-3}
MAX_UPDATES=${MAX_UPDATES:-0}        # 0: as many as EPOCHS need

[ ! -x .venv/bin/python ] || PATH=$PWD/.venv/bin:$PATH

step() { printf '\n== %s\n' "$1"; shift; printf '$ %s\n' "$*"; "$@"; }

if [ -e "$OUTPUT/student" ]; then
  echo "$OUTPUT/student is there already"
  exit 0
fi
# PREFIX.json is written last: where it is, the corpus is whole.
if [ ! -e "$CORPUS/train.json" ]; then
  # shellcheck disable=SC2086  # TEXT is a list of patterns
  step "prepare the text" \
    python -m data.prepare --input $TEXT --tokenizer "$TEACHER" --output "$CORPUS/train"
fi
evaluation=()
if [ -n "$HELDOUT" ]; then
  evaluation=(--eval_data "$CORPUS/heldout")
  if [ ! -e "$CORPUS/heldout.json" ]; then
    # shellcheck disable=SC2086
    step "prepare the held-out text" \
      python -m data.prepare --input $HELDOUT --tokenizer "$TEACHER" --output "$CORPUS/heldout"
  fi
fi

# Loss 5, 2, 1 at temperature 2 and 4,096 sequences an update: Sanh et al. 2019 and their published code (examples of
# transformers, research_projects/distillation), whose defaults are the rest: 3 epochs, learning rate 5e-4 after a warm-up of
# 5%, 15% masked with rare words preferred by count^-0.7. It decays no weights, ds_configs/zero2.json decays by 0.01.
# The student starts from layers 0, 2, 4, 7, 9 and 11 of 12, which is what --student_layers takes by default.
step "distil $NAME" \
  exec deepspeed --num_gpus "$GPUS" ${MASTER_PORT:+--master_port "$MASTER_PORT"} train.py --ds_config "$DS_CONFIG" \
  --teacher "$TEACHER" --data "$CORPUS/train" "${evaluation[@]}" --output "$OUTPUT" --resume \
  --max_length "$MAX_LENGTH" --epochs "$EPOCHS" --max_updates "$MAX_UPDATES" --warmup_share 0.05 \
  --temperature 2 --weight_distillation 5 --weight_mlm 2 --weight_cosine 1 --dropout 0.1 \
  --mask_probability 0.15 --mask_smoothing 0.7 --checkpoint_every 200 "$@"
