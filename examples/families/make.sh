#!/usr/bin/env bash
# The figures of docs/heads_compare.md: head families on the embedded model, frozen and not, and on a model of code of 20 million parameters.
# About seven hours on one core, five of them for that model. Repeat the command after a stop.
set -euo pipefail
here=$(dirname "$0")
export OMP_NUM_THREADS=1

[ -e runs/embedded/train.jsonl ] || python "$here/../embedded/corpus.py" --out runs/embedded
headway heads compare "$here/embedded.yaml"
headway heads compare "$here/embedded.yaml" --joint --max-steps 100 --learning-rate 2e-4 --output-dir runs/families-joint \
  --families parallel sequential medusa hydra redrafter eagle eagle3 gated-lora

[ -e runs/code/heads/model.safetensors ] || "$here/../code/make.sh" runs/code
[ -e runs/code20/start/config.json ] || python "$here/deepen.py" runs/code/trunk runs/code20/start
headway finetune --model runs/code20/start --data runs/code/train.jsonl --output-dir runs/code20/trunk --objective next-token --num-heads 0 \
  --max-steps 900 --batch-size 4 --max-length 512 --learning-rate 8e-4 --weight-decay 0.1 --beta2 0.95 --bf16 --save-steps 100
headway heads compare "$here/code.yaml"
# as much time as the others take, in place of as many steps: those would take it hours
headway heads compare "$here/code.yaml" --families gated-lora --max-seconds 480 --output-dir runs/families-code-gated
