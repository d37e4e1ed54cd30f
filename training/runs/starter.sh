#!/usr/bin/env bash
# The starter model from raw text to model card. Every step goes on from where it was when it is run again.
#
#   DATA=/path/to/data training/runs/starter.sh          the first checkpoint: 20M tokens
#   DATA=/path/to/data training/runs/starter.sh final    60M tokens, from the same stable phase
#
# DATA holds text/movie_reviews.txt, nsmc/ratings_{train,test}.txt (CC0) and chat/ChatbotData.csv (MIT).
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${DATA:?set DATA to the folder that holds text/, nsmc/ and chat/}"
train=.venv/bin/hunmin-train
model=training/models/starter
out=training/out/starter
mkdir -p "$out"

# 1. The tokenizer: 8,192 entries, morpheme-aware. The one in the repository stays: weights depend on its ids.
[ -f "$model/tokenizer.json" ] || $train tokenizer "$DATA/text/movie_reviews.txt" "$DATA/chat/ChatbotData.csv" \
  --exclude "$DATA/nsmc/ratings_test.txt" --out $model

# 2. The corpus: 14.3M tokens a pass; 1 % of the reviews and everything in ratings_test.txt stay out.
[ -f "$out/corpus/corpus.json" ] || $train corpus --tokenizer $model --out $out/corpus \
  --reviews "$DATA/text/movie_reviews.txt" --ratings "$DATA/nsmc/ratings_train.txt" \
  --chat "$DATA/chat/ChatbotData.csv" --exclude "$DATA/nsmc/ratings_test.txt"

# 3. The run: 8,192 tokens a step. Both models share the constant phase up to step 1,950 (16M tokens).
common=(--corpus $out/corpus --tokenizer $model --compile --threads "${THREADS:-2}")
$train pretrain "${common[@]}" --out $out/run --steps 7400 --decay 1500 --stop-at 1950
if [ "${1:-first}" = final ]; then
  [ -d $out/final ] || cp -r $out/run $out/final
  $train pretrain "${common[@]}" --out $out/final --steps 7400 --decay 1500
  run=$out/final
else
  [ -d $out/first ] || cp -r $out/run $out/first
  $train pretrain "${common[@]}" --out $out/first --steps 2450 --decay 500
  run=$out/first
fi

# 4. The model folder, its figures and its card.
$train export --run $run --tokenizer $model --out $model
$train evaluate --model $model --held-out $out/corpus/held_out.txt --threads "${THREADS:-2}" --out $run/figures.json \
  --ratings-train "$DATA/nsmc/ratings_train.txt" --ratings-test "$DATA/nsmc/ratings_test.txt"
$train card --run $run --corpus $out/corpus --model $model
