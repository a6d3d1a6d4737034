"""The mixture that the embedded model is pretrained on, its held-out texts, and its tokenizer.

    python examples/embedded/corpus.py --shared ../shared --out runs/embedded

Writes train.jsonl, valid.jsonl, valid-{stories,arithmetic,code,books}.jsonl (one {"text"} a line), stats.json and tokenizer/ in
`--out`, always the same on one Python version. The word problems of `headway demo` are not among them: they must be new to the
model.
"""

import argparse
import json
import lzma
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from headway.data.generated.arithmetic import generate_drills
from headway.data.generated.stdlib import stdlib
from headway.data.generated.stories import generate_stories
from headway.files import replacing_folder, write_json, write_text

SHARES = {"stories": 0.55, "arithmetic": 0.17, "code": 0.13, "books": 0.15}  # of the characters
HELD_OUT = 200  # texts a domain
REPEATS = 6  # of the real short stories
PASSAGE = 1500  # characters
LONGEST_SENTENCE = 15.0  # words, on average, of a work simple enough
END = "<|endoftext|>"
# plays, verse, tables and scripture read as neither prose nor short sentences
NOT_PROSE = re.compile(
    r"Hamlet|King Lear|As You Like|Winter's|Labour's|Much Ado|Taming|Pygmalion|Quran|Analects|Zarathustra|Poems|Songs|Ten Days"
)
# authors who died after 1955: their works may still be protected where the term is life + 70 years
LATE = re.compile(r"Wodehouse|Christie|Huxley|Forster|Hesse|Warner|Sanger|Edward E\. Smith|Hecht|McCulley|West\b|Churchill")
PLAIN = str.maketrans("\u201c\u201d\u2018\u2019\u2014", "\"\"''-")  # typographic quotes and dashes
CHILDREN = re.compile(
    r"Oz\b|Railway Children|Green Gables|of the Island|Pinocchio|Heidi|Peter Pan|Dolittle|Andersen|Princess and the Goblin|"
    r"Little Women|Milly|Book of Dragons|Christmas Angel|Irish Fairy|Rainbow Valley|Huckleberry|Christmas Stories|"
    r"Prince and the Pauper"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with data/tinystories_en and data/books_en")
    parser.add_argument("--out", type=Path, default=Path("runs/embedded"))
    parser.add_argument("--characters", type=int, default=59_000_000, help="about so many in train.jsonl")
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--only", choices=SHARES, help="one domain instead of the mixture")
    arguments = parser.parse_args()

    random_ = random.Random(0)
    shares = {arguments.only: 1.0} if arguments.only else SHARES
    make: dict[str, Callable[[int], Split]] = {
        "stories": lambda wanted: stories(arguments.shared, wanted),
        "arithmetic": arithmetic,
        "code": lambda wanted: code(wanted, random_),
        "books": lambda wanted: books(arguments.shared, wanted, random_),
    }
    domains = {name: make[name](int(share * arguments.characters)) for name, share in shares.items()}
    for name, (train, valid) in domains.items():  # some modules hold the same text twice
        learnt = set(train)
        domains[name] = train, [text for text in valid if text not in learnt]
    for name, (_, valid) in domains.items():
        write_lines(arguments.out / f"valid-{name}.jsonl", valid)
    train = [text for texts, _ in domains.values() for text in texts]
    valid = [text for _, texts in domains.values() for text in texts]
    random_.shuffle(train)
    random_.shuffle(valid)
    write_lines(arguments.out / "train.jsonl", train)
    write_lines(arguments.out / "valid.jsonl", valid)
    tokenizer = learn_tokenizer(train[::2], arguments.vocabulary)
    with replacing_folder(arguments.out / "tokenizer") as folder:
        tokenizer.save_pretrained(folder)
    stats = {name: describe(texts, held_out, tokenizer) for name, (texts, held_out) in domains.items()}
    stats["all"] = describe(train, valid, tokenizer)
    write_json(arguments.out / "stats.json", stats)
    line = " · ".join(
        f"{name}: {s['characters'] / 1e6:.1f}M characters, {s['texts']} texts, {s['characters_per_token']:.2f} characters a token"
        for name, s in stats.items()
    )
    print(line)
    write_text(arguments.out / "READY", line + "\n")


Split = tuple[list[str], list[str]]  # train, held out


def stories(shared: Path, characters: int) -> Split:
    """Real short stories, repeated, filled up with generated ones; half of the held-out texts are of each."""
    with lzma.open(shared / "data" / "tinystories_en" / "tinystories_first1k.jsonl.xz", "rt", encoding="utf-8") as file:
        real = [json.loads(line)["text"].strip() for line in file]
    random.Random(1).shuffle(real)
    half = HELD_OUT // 2
    train, held_out = real[half:] * REPEATS, real[:half]
    generated = iter(generate_stories(2 * characters // 600, seed=0))
    held_out += [next(generated) for _ in range(half)]
    return train + until(generated, characters - length(train)), held_out


def arithmetic(characters: int) -> Split:
    drills = iter(generate_drills(characters // 240, seed=0))
    held_out = [next(drills) for _ in range(HELD_OUT)]
    return until(drills, characters), held_out


def code(characters: int, random_: random.Random) -> Split:
    """The standard library, cut before top-level lines; whole modules are held out."""
    parts = [[p for row in stdlib(split) for p in pieces(row["text"], r"\n\n(?=\S)", "\n\n")] for split in ("train", "test")]
    train, held_out = ([p for p in some if sum(map(str.isalpha, p)) > 0.5 * len(p)] for some in parts)  # no tables
    random_.shuffle(train)
    random_.shuffle(held_out)
    return until(iter(train), characters), held_out[:HELD_OUT]


def books(shared: Path, characters: int, random_: random.Random) -> Split:
    """Passages of works in short, simple sentences; the held-out ones are of other works."""
    folder = shared / "data" / "books_en"
    train = [p for path in sorted(folder.glob("train-*.jsonl.xz")) for p in passages(path)]
    held_out = list(passages(folder / "valid.jsonl.xz"))
    random_.shuffle(train)
    random_.shuffle(held_out)
    return until(iter(train), characters), held_out[:HELD_OUT]


def passages(path: Path) -> Iterator[str]:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            book = json.loads(line)
            words, ends = book["text"].count(" "), sum(map(book["text"].count, ".!?"))
            simple = words / max(1, ends) <= LONGEST_SENTENCE or CHILDREN.search(book["title"])
            if simple and not NOT_PROSE.search(book["title"]) and not LATE.search(book["author"]):
                text = book["text"].translate(PLAIN)
                yield from (p for p in pieces(text, r"\n\n+", "\n\n") if len(p) > 300 and p.isascii())


def pieces(text: str, border: str, joint: str) -> Iterator[str]:
    """Whole paragraphs, joined up to about PASSAGE characters."""
    part = ""
    for paragraph in re.split(border, text.strip()):
        if part and len(part) + len(paragraph) > PASSAGE:
            yield part
            part = ""
        part = part + joint + paragraph if part else paragraph
    if part.strip():
        yield part


def until(texts: Iterator[str], characters: int) -> list[str]:
    taken, total = [], 0
    for text in texts:
        if total >= characters:
            break
        taken.append(text)
        total += len(text)
    return taken


def length(texts: Iterable[str]) -> int:
    return sum(map(len, texts))


def write_lines(path: Path, texts: Iterable[str]) -> None:
    write_text(path, "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))


def learn_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE; digits stand alone, so that numbers are read as they are written."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False, model_max_length=512
    )


def describe(train: list[str], held_out: list[str], tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    sample = "\n".join(held_out)
    return {
        "texts": len(train),
        "characters": length(train),
        "bytes": sum(len(text.encode()) for text in train),
        "held_out_texts": len(held_out),
        "characters_per_token": len(sample) / len(tokenizer(sample, verbose=False)["input_ids"]),
    }


if __name__ == "__main__":
    main()
