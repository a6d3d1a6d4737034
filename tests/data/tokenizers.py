"""Five kinds of small tokenizers with chat templates, and a slow tokenizer without offsets."""

import json
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] "
    "+ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
HEADINGS = (
    "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
)
LINES = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
TEXTS = [
    "Once upon a time there was a little dog named Tim. Tim liked to run in the park.\n\nHe ran and ran.\n",
    "Question: What is 2 + 2?\nAnswer: 4\n\n### user:\nHi there\n\n### assistant:\nHello, how are you?\n\n### user:\n",
    "user: a\nassistant: b\nuser: c  d   e\n",
] * 5


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """As Llama 1 and 2: a space in front of the text, bytes for unknown characters, bos in front."""
    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()  # for training alone
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    raw.train_from_iterator([text.replace("\n", " ") for text in TEXTS], _trainer(special, ["▁"]))
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    serialised = Tokenizer.from_str(json.dumps(json.loads(raw.to_str()) | {"pre_tokenizer": None}))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=serialised, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = LINES
    return tokenizer


def byte_level(
    special: Sequence[str], eos: str, template: str, bos: str | None = None, prepend: bool = False
) -> PreTrainedTokenizerFast:
    """As GPT-2, Qwen and Llama 3. prepend: the tokenizer sets bos in front of a text."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(TEXTS, _trainer(special, pre_tokenizers.ByteLevel.alphabet()))
    if prepend:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(str(bos), raw.token_to_id(str(bos)))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=bos, eos_token=eos)
    tokenizer.chat_template = template
    return tokenizer


def slow() -> PreTrainedTokenizerBase:
    """Bytes, in Python, without character offsets."""
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = LINES
    return tokenizer


def all_kinds() -> dict[str, PreTrainedTokenizerBase]:
    llama3 = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    return {
        "sentencepiece-like": sentencepiece_like(),
        "byte-level BPE": byte_level(["<bos>", "<eos>"], "<eos>", HEADINGS, "<bos>", prepend=True),
        "ChatML": byte_level(["<|im_start|>", "<|im_end|>"], "<|im_end|>", CHATML),
        "Llama 3": byte_level(llama3, "<|eot_id|>", LLAMA3, "<|begin_of_text|>", prepend=True),
        "adds nothing": byte_level(["<|endoftext|>"], "<|endoftext|>", LINES),
        "slow": slow(),
    }


def _trainer(special: Sequence[str], alphabet: Sequence[str]) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(vocab_size=700, special_tokens=list(special), initial_alphabet=list(alphabet), show_progress=False)
