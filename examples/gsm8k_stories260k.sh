#!/usr/bin/env bash
# A real pretrained model and real data through every verb, with few steps: what comes out is not a good solver, but every path is real.
# Usage: examples/gsm8k_stories260k.sh [SHARED] [OUT]     (SHARED holds models/stories260k and data/gsm8k)
set -euo pipefail
shared=${1:-../shared}
out=${2:-runs/gsm8k_stories260k}
model=$shared/models/stories260k
train=$shared/data/gsm8k/train.jsonl.gz
test=$shared/data/gsm8k/test.jsonl.gz
steps=${STEPS:-30}
common=(--data "$train" --limit 400 --max-length 512 --batch-size 4 --max-steps "$steps" --seed 0 --quiet)
show() { echo; echo "\$ headway $*"; headway "$@"; }

show heads train --model "$model" --family parallel --num-heads 2 --output-dir "$out/heads" "${common[@]}"
show heads inspect "$out/heads"
show finetune --model "$model" --heads "$out/heads" --objective multi-token --learning-rate 1e-3 --output-dir "$out/multi" "${common[@]}"
show finetune --model "$model" --objective next-token --learning-rate 1e-3 --output-dir "$out/next" "${common[@]}"
show finetune --model "$model" --heads "$out/heads" --objective multi-token --lora --learning-rate 2e-3 --output-dir "$out/multi-lora" "${common[@]}"
show finetune --model "$model" --objective next-token --lora --learning-rate 2e-3 --output-dir "$out/next-lora" "${common[@]}"
for arm in multi next multi-lora next-lora; do
  show eval --model "$out/$arm" --task gsm8k --data "$test" --limit 16 --max-new-tokens 64 --output-file "$out/$arm.json"
done
show generate --model "$out/multi" --prompt "Question: Tom has 3 apples and buys 4 more. How many apples does he have?
Answer:" --max-new-tokens 40
show generate --model "$out/multi" --no-speculative --json --prompt "Question: Tom has 3 apples." --max-new-tokens 20
