#!/bin/bash
# DistilmBERT (model card of distilbert-base-multilingual-cased): multilingual BERT, cased, into 6 layers, 134 M parameters
# instead of 177 M, most of them the 119,547 words. Text: the Wikipedias of 104 languages, one after the other. No settings of
# its own were published: these are DistilBERT's.
#
#   TEXT='wikipedia-104/*.jsonl.xz' GPUS=8 launcher/recipes/distilmbert.sh [FLAGS OF train.py]
#
# Nothing is done about the sizes of the Wikipedias: what languages are read how often is what TEXT has of them.
# launcher/recipes/steps.sh has the steps, the hyperparameters and what else may be set.
cd "$(dirname "$0")/../.."
NAME=distilmbert
TEXT=${TEXT:-text/wikipedia-104/*.jsonl.xz}
TEACHER=${TEACHER:-bert-base-multilingual-cased}
. launcher/recipes/steps.sh
