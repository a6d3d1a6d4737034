"""What drafting costs where it cannot help: random heads, and n-grams on sampled text, which seldom repeats itself.

python examples/embedded/never_slower.py [--batches 1 4 16] [--new 128] [--repeats 11] [--threads 1]

Plain decoding and both ways take turns on the embedded model, with the same seeds and so the same text. Prints how fast each way
is beside plain decoding: the median over the repeats, and in brackets the least and the most.
"""

import argparse
import statistics
import time
from typing import Any

import torch

from headway import HeadwayModel
from headway.decoding import ngram_drafter

PROMPT = 32  # tokens, drawn at random


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    trunk = HeadwayModel.from_pretrained("embedded").trunk
    for batch in arguments.batches:
        model = HeadwayModel.from_trunk(trunk, count=4).eval()  # a new one, that has learnt nothing about its drafts
        assert model.heads is not None
        for parameter in model.heads.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        prompts = torch.randint(trunk.config.vocab_size, (batch, PROMPT))
        ways: dict[str, dict[str, Any]] = {"plain": {"plain": True}, "random heads": {}, "n-grams": {"drafter": ngram_drafter()}}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for repeat in range(arguments.repeats + 1):  # the first one warms up
            order = list(ways)
            for name in order[repeat % len(ways) :] + order[: repeat % len(ways)]:
                began = time.perf_counter()
                out = model.generate(
                    prompts, max_new_tokens=arguments.new, eos_token_id=None, do_sample=True, seed=repeat, **ways[name]
                )
                seconds[name].append(time.perf_counter() - began)
                assert out.sequences.shape[1] == PROMPT + arguments.new
        for name in list(ways)[1:]:
            ratios = [plain / own for plain, own in zip(seconds["plain"][1:], seconds[name][1:], strict=True)]
            print(f"batch {batch}, {name}: {statistics.median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f})", flush=True)


if __name__ == "__main__":
    main()
