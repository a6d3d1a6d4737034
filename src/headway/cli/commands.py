"""Commands of `headway` as data: settings, function, help, and the line to print at the end.

Importing this module is fast. The module of a command is imported when the command runs.
"""

from dataclasses import dataclass

from headway.experiments.reproduce.configs import EXPERIMENTS


@dataclass(frozen=True)
class Command:
    """A row of the table.

    name: words after `headway`; the first of two words is a group.
    about: line for `headway --help`, and the first line of the command's own help.
    config: "module:Class" of the settings. The module must not import torch.
    run: "module:function" that takes the settings.
    section: heading for `headway --help`.
    details: more sentences for the command's own help.
    positional: flag with a value that may also stand alone.
    listing: flag that prints a table and exits, and "module:function" that returns the table.
    resumable: True if the same command continues an interrupted run.
    result: line to print on stderr at the end, with the function's result for `{}`. Empty if the function prints by itself.
    """

    name: str
    about: str
    config: str
    run: str
    section: str
    details: str = ""
    positional: str = ""
    listing: tuple[str, str] | None = None
    resumable: bool = False
    result: str = ""


START, TRAIN, MEASURE, EXCHANGE = "Start here", "Train", "Measure", "Exchange with other software"
REPRODUCE = "Reproduce Gloeckle et al. 2024 (arXiv 2404.19737) at small scale"
RESUME = "Repeat the command to continue an interrupted run."


def _probe(name: str, about: str, config: str, module: str) -> Command:
    source = f"headway.evaluation.probes.{module}:run"
    return Command(f"probe {name}", about, f"headway.evaluation.probes.configs:{config}", source, MEASURE)


def _bench(name: str, about: str, config: str, module: str) -> Command:
    source = f"headway.evaluation.benchmarks.{module}:run"
    return Command(f"bench {name}", about, f"headway.evaluation.configs:{config}", source, MEASURE)


_ALL = (
    Command(
        "demo",
        "Fine-tune the embedded model with and without extra heads; compare scores and speed",
        "headway.experiments.compare.configs:DemoConfig",
        "headway.experiments.demo:run",
        START,
        details=f"Takes minutes on two CPU cores and needs no network. {RESUME}",
        resumable=True,
    ),
    Command(
        "generate",
        "Continue prompts with speculative decoding",
        "headway.cli.generate:GenerateConfig",
        "headway.cli.generate:run",
        START,
        details="The heads draft and the model verifies, so the text is the same as without heads.",
    ),
    Command(
        "heads train",
        "Train multi-token prediction heads on a frozen model",
        "headway.training.configs:HeadsTrainConfig",
        "headway.training:train_heads",
        TRAIN,
        details="Settings that are not given come from a published recipe of the heads' family; --list-recipes prints the recipes. "
        f"Most recipes advise training data sampled from the model itself (headway heads distill). {RESUME}",
        listing=("--list-recipes", "headway.cli.recipes:table_of_recipes"),
        resumable=True,
        result="The heads are in {}",
    ),
    Command(
        "heads distill",
        "Sample training data for heads from the model itself",
        "headway.training.configs:DistillConfig",
        "headway.training:distill",
        TRAIN,
        details=f"`headway heads train` and `headway finetune` read the samples as --data. {RESUME}",
        resumable=True,
        result="{}",
    ),
    Command(
        "heads compare",
        "Train every head family on one trunk; compare cost, acceptance and speed",
        "headway.experiments.families.configs:HeadsCompareConfig",
        "headway.experiments.families.compare:run",
        MEASURE,
        details="All families get the same data and budget. CONFIG is a YAML file of settings, in which families may have options. "
        f"{RESUME}",
        positional="config",
        resumable=True,
    ),
    Command(
        "heads inspect",
        "Show the heads in a folder: family, tensors, and the engines that read the format",
        "headway.cli.heads_inspect:InspectConfig",
        "headway.cli.heads_inspect:run",
        EXCHANGE,
        details="Reads headers only, so large folders take no time.",
        positional="folder",
    ),
    Command(
        "finetune",
        "Fine-tune a model, with or without heads, in full or with LoRA",
        "headway.training.configs:FinetuneConfig",
        "headway.training:finetune",
        TRAIN,
        details=f"The model learns the next token, and each head a later token. {RESUME}",
        resumable=True,
        result="The model is in {}",
    ),
    Command(
        "pretrain",
        "Train a small Llama-architecture model from scratch",
        "headway.training.configs:PretrainConfig",
        "headway.training:pretrain",
        TRAIN,
        details=f"The defaults are the recipe of the embedded model. {RESUME}",
        resumable=True,
        result="The model is in {}",
    ),
    Command(
        "export",
        "Write a model's heads in the format of other software",
        "headway.cli.interop:ExportConfig",
        "headway.cli.interop:run_export",
        EXCHANGE,
        details="Example: headway export --model FOLDER --to FORMAT --output-dir FOLDER",
        listing=("--list-formats", "headway.interop.formats:format_list"),
    ),
    Command(
        "import",
        "Read heads that other software wrote",
        "headway.cli.interop:ImportConfig",
        "headway.cli.interop:run_import",
        EXCHANGE,
        details="Example: headway import FOLDER --from FORMAT --output-dir FOLDER",
        listing=("--list-formats", "headway.interop.formats:format_list"),
        positional="folder",
    ),
    Command(
        "eval",
        "Score a model: answers, programs, held-out losses, or tasks of lm-eval",
        "headway.evaluation.configs:EvalConfig",
        "headway.cli.evaluate:run",
        MEASURE,
        details="Speculative decoding makes scoring faster; the answers stay the same. --list-tasks prints the tasks.",
        listing=("--list-tasks", "headway.evaluation.tasks:task_list"),
    ),
    Command(
        "compare",
        "Fine-tune several variants on several tasks and seeds; compare scores and speed",
        "headway.experiments.compare.configs:CompareConfig",
        "headway.experiments.compare.compare:run",
        MEASURE,
        details="All variants get the same data and budget, and differences are paired by seed. CONFIG is a YAML file of settings; "
        f"examples/compare.yaml is one. {RESUME}",
        positional="config",
        resumable=True,
    ),
    _bench("train", "Memory and time of a training step, beside stock transformers", "BenchConfig", "train_step"),
    _bench("plan", "Estimate the speedup from heads on a model and machine, before training", "PlanConfig", "speedup_estimate"),
    _bench("decode", "Speed of decoding variants on the same prompts, beside stock transformers", "DecodeBenchConfig", "decode"),
    _probe("simpleqa", "Short factual questions: correct, incorrect or not attempted", "SimpleQAConfig", "simpleqa"),
    _probe("lost-in-the-middle", "Accuracy by position of the relevant document", "LostInTheMiddleConfig", "lost_in_the_middle"),
    _probe("key-value", "Accuracy by position of the requested key-value pair", "KeyValueConfig", "key_value"),
    _probe("slick", "Sort a fine-tuning set by the model's prior knowledge (SliCK), and filter the set", "SlickConfig", "slick"),
    _probe("copying", "Share of answers that is copied from their sources", "CopyingConfig", "copying"),
    _probe("verbatim", "Share of generated text that stands verbatim in the training data", "VerbatimConfig", "verbatim"),
    *(
        Command(
            f"reproduce {name}",
            (config.__doc__ or "").splitlines()[0].rstrip("."),
            f"headway.experiments.reproduce.configs:{config.__name__}",
            "headway.experiments.reproduce.reproduce:reproduce",
            REPRODUCE,
            details=f"Repeats an experiment of Gloeckle et al. 2024 (arXiv 2404.19737) at small scale. {RESUME}",
            resumable=True,
        )
        for name, config in EXPERIMENTS.items()
    ),
)

COMMANDS: dict[str, Command] = {command.name: command for command in _ALL}
