"""From a trained folder to the one that ships: weights kept in half precision, computed with in float32, and nothing of the run.

python examples/embedded/package.py --model runs/embedded/heads --out src/headway/embedded
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SHIPPED = ("config.json", "generation_config.json", "headway.json", "tokenizer.json", "tokenizer_config.json")
LIMIT = 12_000_000  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "headway.safetensors"):
        tensors = load_file(arguments.model / name)
        # ten bits of mantissa are kept; weights of this model lie far inside the range of float16
        halved = {key: value.to(torch.float16) for key, value in tensors.items()}
        worst = max(float((halved[key].float() - value.float()).abs().max()) for key, value in tensors.items())
        save_file(halved, arguments.out / name, metadata={"format": "pt"})
        print(f"{name}: {sum(v.numel() for v in tensors.values()):,} parameters, rounded by at most {worst:.1e}")
    for name in SHIPPED:
        shutil.copyfile(arguments.model / name, arguments.out / name)
    config = json.loads((arguments.out / "config.json").read_text())
    assert config["dtype"] == "float32", "transformers computes in what config.json says, whatever the file holds"
    size = sum(file.stat().st_size for file in arguments.out.iterdir())
    assert size < LIMIT, f"{size} bytes are more than ship"
    print(f"{arguments.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
