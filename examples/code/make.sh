#!/usr/bin/env bash
# A model of Python code with 4 heads, from the standard library alone: corpus, trunk, heads, figures on held-out modules.
# About two hours on one core. Usage: examples/code/make.sh [OUT]
set -euo pipefail
out=${1:-runs/code}
export OMP_NUM_THREADS=1

python "$(dirname "$0")/../embedded/corpus.py" --only code --vocabulary 4096 --out "$out"
headway pretrain --data "$out/train.jsonl" --tokenizer "$out/tokenizer" --out "$out/trunk" \
  --hidden-size 384 --layers 6 --attention-heads 6 --key-value-heads 2 --intermediate-size 1024 \
  --batch-size 8 --learning-rate 1.5e-3 --max-steps 1700 --save-steps 200
headway heads train --model "$out/trunk" --data "$out/train.jsonl" --out "$out/heads" --family parallel --count 4 \
  --objective distillation --learning-rate 1e-3 --beta2 0.95 --bf16 --batch-size 8 --max-steps 500 --save-steps 100
headway eval --model "$out/heads" --task held-out --data "$out/valid.jsonl" --speed-prompts 24 --out "$out/figures.json"
