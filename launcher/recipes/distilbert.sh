#!/bin/bash
# DistilBERT (Sanh et al. 2019, arXiv:1910.01108): BERT-base, uncased, into 6 layers, 66 M parameters instead of 110 M. Text:
# English Wikipedia and the Toronto Book Corpus, as its teacher's. The original took 8 V100s of 16 GB about 90 hours.
#
#   TEXT='wiki/*.jsonl.xz books/*.jsonl.xz' GPUS=8 launcher/recipes/distilbert.sh [FLAGS OF train.py]
#
# launcher/recipes/steps.sh has the steps, the hyperparameters and what else may be set.
cd "$(dirname "$0")/../.."
NAME=distilbert
TEXT=${TEXT:-text/wiki/*.jsonl.xz text/books/*.jsonl.xz}
TEACHER=${TEACHER:-bert-base-uncased}
. launcher/recipes/steps.sh
