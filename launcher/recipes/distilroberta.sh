#!/bin/bash
# DistilRoBERTa (model card of distilroberta-base): RoBERTa-base, cased, into 6 layers, 82 M parameters instead of 125 M, saved
# as RobertaForMaskedLM. Text: OpenWebTextCorpus alone, about a quarter of its teacher's. Trained as DistilBERT was.
#
#   TEXT='openwebtext/*.jsonl.xz' GPUS=8 launcher/recipes/distilroberta.sh [FLAGS OF train.py]
#
# Positions are trained like everything else; the original code has a switch that freezes RoBERTa's. 514 positions are 512
# for text: RoBERTa's count from the padding token's id, 1.
# launcher/recipes/steps.sh has the steps, the hyperparameters and what else may be set.
cd "$(dirname "$0")/../.."
NAME=distilroberta
TEXT=${TEXT:-text/openwebtext/*.jsonl.xz}
TEACHER=${TEACHER:-roberta-base}
. launcher/recipes/steps.sh
