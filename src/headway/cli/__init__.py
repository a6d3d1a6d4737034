"""The command `headway`: a table of verbs, each in a file of its own that is imported only when it is called."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from headway.config import nearest
from headway.errors import ConfigError, HeadwayError

# verb -> (module in this package, what it does)
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "train next-token against multi-token on the embedded model, compare scores and speed"),
    "pretrain": ("pretrain", "train a small model from scratch, the recipe of the embedded one"),
    "heads train": ("heads_train", "attach heads to a frozen model and train them"),
    "heads distill": ("heads_distill", "write the model's own samples, to train heads on"),
    "heads inspect": ("heads_inspect", "say what a folder of heads holds"),
    "heads compare": ("heads_compare", "every head family on one trunk: what it costs, what it keeps, how fast it is"),
    "finetune": ("finetune", "fine-tune a model, with heads or without, in full or with LoRA"),
    "generate": ("generate", "continue a prompt, drafting with the heads; the output is the model's own"),
    "export": ("export", "write a model's heads the way other software reads them"),
    "import": ("import_", "read heads that other software wrote"),
    "compare": ("compare", "arms x seeds x tasks with the same data and budget: does looking ahead help your model?"),
    "eval": ("evaluate", "score a model on a task"),
    "reproduce": ("reproduce", "repeat a published experiment at small scale, the paper's claim beside it"),
    "probe simpleqa": ("probe_simpleqa", "short questions of fact: correct, incorrect or not attempted"),
    "probe lost-in-the-middle": ("probe_lost_in_the_middle", "score by the place of the document that holds the answer"),
    "probe key-value": ("probe_key_value", "score by the place of the pair that is asked for"),
    "probe slick": ("probe_slick", "what the model knows of a fine-tuning set already, and a filter"),
    "probe copying": ("probe_copying", "how much of answers is copied from their sources"),
    "probe verbatim": ("probe_verbatim", "how much of what checkpoints write stands in the training data"),
    "bench train": ("bench_train", "memory and time of a training step, beside stock transformers"),
    "bench plan": ("bench_plan", "whether heads would pay on a model and machine, before training any"),
    "bench decode": ("bench_decode", "ways to decode the same prompts, side by side"),
}
RESUMABLE = ("pretrain", "heads train", "heads distill", "heads compare", "finetune", "compare", "demo", "reproduce")


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 0, 2 after a mistake that the user can mend, 130 when interrupted, 141 when nobody
    reads on, as behind `| head`."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb = ""
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            print(overview())
            return 0
        if words[0] in ("-V", "--version"):
            print(f"headway {import_module('headway').__version__}")
            return 0
        verb = _verb(words)
        if not verb:
            print(overview(words[0]))
            return 0
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else tokenizers warn when a data worker forks
        for name in ("torchao", "torch.utils._pytree"):  # where torchao is installed, transformers imports it: it reports each
            logging.getLogger(name).setLevel(logging.ERROR)  # library for a device that is not here
        with warnings.catch_warnings():
            warnings.showwarning = _plainly(warnings.showwarning)
            import_module(f"headway.cli.{VERBS[verb][0]}").run(words[len(verb.split()) :])
        sys.stdout.flush()
    except HeadwayError as error:
        print(f"headway: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports the same once more when it ends
        return 141
    except KeyboardInterrupt:
        hint = "; repeat the command to go on where it stopped" if verb in RESUMABLE else ""
        print(f"\nheadway: interrupted{hint}.", file=sys.stderr)
        return 130
    except SystemExit as stop:  # argparse leaves this way after --help
        return stop.code if isinstance(stop.code, int) else 0
    return 0


def overview(group: str = "") -> str:
    """The help of `headway`, or of a group of verbs such as `headway heads`."""
    shown = {verb: about for verb, (_, about) in VERBS.items() if not group or verb.split()[0] == group}
    width = max(map(len, shown))
    lines = [f"  headway {verb:<{width}}  {about}" for verb, about in shown.items()]
    return "\n".join(
        [
            "Multi-token prediction heads for pretrained language models.",
            "",
            *lines,
            "",
            "`headway VERB --help` lists the settings of a verb: each is a flag, and a key in a --config FILE.yaml.",
        ]
    )


def _plainly(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Headway's own warnings as one line for the reader; those of others as they are."""
    package = str(Path(__file__).parents[1])

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        if filename.startswith(package):
            print(f"headway: note: {message}", file=sys.stderr)
        else:
            otherwise(message, category, filename, lineno, *rest)

    return show


def _verb(words: list[str]) -> str:
    """The verb that `words` begin with; empty where they only ask what a group such as `heads` holds."""
    for length in (2, 1):
        if (verb := " ".join(words[:length])) in VERBS:
            return verb
    group = [verb for verb in VERBS if verb.startswith(words[0] + " ")]
    if group and len(words) > 1 and words[1] not in ("-h", "--help"):
        wrong = " ".join(words[:2])
        raise ConfigError(f"there is no {wrong!r}{nearest(wrong, group) or '; there is: ' + ', '.join(group) + '.'}")
    if group:
        return ""
    close = nearest(words[0], [*VERBS, *{verb.split()[0] for verb in VERBS}])
    raise ConfigError(f"there is no verb {words[0]!r}{close or '; see headway --help.'}")
