"""Twice as many layers: behind each a copy of it that adds nothing yet (block expansion, LLaMA Pro, arXiv 2401.02415, section 3.1).

python examples/families/deepen.py runs/code/trunk runs/code20/start
"""

import argparse
import copy

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM


def deepen(model: LlamaForCausalLM) -> None:
    layers = []
    for layer in model.model.layers:
        added = copy.deepcopy(layer)
        nn.init.zeros_(added.self_attn.o_proj.weight)
        nn.init.zeros_(added.mlp.down_proj.weight)
        layers += [layer, added]
    for index, layer in enumerate(layers):
        layer.self_attn.layer_idx = index
    model.model.layers = nn.ModuleList(layers)
    model.config.num_hidden_layers = len(layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder of a Llama")
    parser.add_argument("out", help="folder for the deeper one, which says the same until it is trained")
    arguments = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(arguments.source, dtype=torch.float32)
    if not isinstance(model, LlamaForCausalLM):
        parser.error(f"{arguments.source} is a {type(model).__name__}: this is written for Llamas.")
    deepen(model)
    model.save_pretrained(arguments.out)
    AutoTokenizer.from_pretrained(arguments.source).save_pretrained(arguments.out)
    print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters in {arguments.out}")


if __name__ == "__main__":
    main()
