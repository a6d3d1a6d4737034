#!/usr/bin/env bash
# The embedded model from nothing: corpus, trunk, heads, the folder that ships, and its figures on held-out text. About 100 minutes on 2 cores.
# Usage: examples/embedded/make.sh [SHARED] [OUT]     (SHARED holds data/tinystories_en and data/books_en)
set -euo pipefail
shared=${1:-../shared}
out=${2:-runs/embedded}
here=$(dirname "$0")
export OMP_NUM_THREADS=1  # a process a core
two=(torchrun --nproc-per-node 2 --no-python)

python "$here/corpus.py" --shared "$shared" --out "$out"
"${two[@]}" headway pretrain --data "$out/train.jsonl" --tokenizer "$out/tokenizer" --output-dir "$out/trunk" \
  --batch-size 8 --max-steps 2800 --save-steps 400
"${two[@]}" headway heads train --model "$out/trunk" --data "$out/train.jsonl" --output-dir "$out/heads" --family parallel --num-heads 4 \
  --objective distillation --learning-rate 2e-3 --beta2 0.95 --bf16 --batch-size 8 --max-steps 1300 --save-steps 200
python "$here/package.py" --model "$out/heads" --out src/headway/embedded
for domain in stories arithmetic code books; do
  headway eval --model embedded --task held-out --data "$out/valid-$domain.jsonl" --speed-prompts 24 --output-file "$out/figures-$domain.json"
done
headway eval --model embedded --task word-problems --limit 200 --no-speed --output-file "$out/figures-problems.json"
