#!/usr/bin/env bash
# A model of Python code with 4 heads, from the standard library alone: corpus, trunk, heads, figures on held-out modules.
# 11M parameters take about two hours on one core, 36M (SIZE=36M) about three. Usage: [SIZE=36M] examples/code/make.sh [OUT]
set -euo pipefail
out=${1:-runs/code}
export OMP_NUM_THREADS=1
case ${SIZE:-11M} in
  11M) shape="--hidden-size 384 --layers 6 --attention-heads 6 --intermediate-size 1024 --learning-rate 1.5e-3 --max-steps 1700" heads=500 ;;
  36M) shape="--hidden-size 512 --layers 12 --attention-heads 8 --intermediate-size 1408 --learning-rate 1.2e-3 --max-steps 1350" heads=300 ;;
  *) echo "SIZE is 11M or 36M" >&2; exit 2 ;;
esac

python "$(dirname "$0")/../embedded/corpus.py" --only code --vocabulary 4096 --out "$out"
# shellcheck disable=SC2086
headway pretrain --data "$out/train.jsonl" --tokenizer "$out/tokenizer" --output-dir "$out/trunk" $shape --key-value-heads 2 \
  --batch-size 8 --save-steps 200
headway heads train --model "$out/trunk" --data "$out/train.jsonl" --output-dir "$out/heads" --family parallel --num-heads 4 \
  --objective distillation --learning-rate 1e-3 --beta2 0.95 --bf16 --batch-size 8 --max-steps "$heads" --save-steps 100
headway eval --model "$out/heads" --task held-out --data "$out/valid.jsonl" --speed-prompts 24 --output-file "$out/figures.json"
headway bench decode --model "$out/heads" --data "$out/valid.jsonl" --dtype bfloat16 --prompts 16 --batches 1 4 16 --max-new-tokens 48 \
  --repeats 3 --output-file "$out/decode.json"
