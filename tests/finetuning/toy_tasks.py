"""Small tasks in the toy language of tests.conftest, learnable in a few updates, in the published shapes."""

import json
import random
from pathlib import Path

NOUNS = [f"{a}{b}" for a in ("ba", "do", "ki", "lu", "me", "po") for b in ("lan", "ret", "sim", "tok")]
VERBS = ("sees", "likes", "finds", "calls", "hears")


def sentence(draw: random.Random) -> tuple[str, str]:
    verb = draw.choice(VERBS)
    return f"the {draw.choice(NOUNS)} {verb} the {draw.choice(NOUNS)} .", verb


def write_sst2(folder: Path, num_train: int = 96, num_dev: int = 40) -> Path:
    """Positive where somebody likes or hears: one word decides."""
    (folder / "SST-2").mkdir(parents=True)
    for name, count, seed in (("train", num_train, 0), ("dev", num_dev, 1)):
        draw = random.Random(seed)
        rows = ["sentence\tlabel"]
        for _ in range(count):
            text, verb = sentence(draw)
            rows.append(f"{text}\t{int(verb in ('likes', 'hears'))}")
        (folder / "SST-2" / f"{name}.tsv").write_text("\n".join(rows) + "\n")
    return folder


def write_rte(folder: Path) -> Path:
    """Pairs: entailed where both have the same verb."""
    (folder / "RTE").mkdir(parents=True)
    for name, count, seed in (("train", 64, 0), ("dev", 24, 1)):
        draw = random.Random(seed)
        rows = ["index\tsentence1\tsentence2\tlabel"]
        for number in range(count):
            (one, verb), (two, other) = sentence(draw), sentence(draw)
            rows.append(f"{number}\t{one}\t{two}\t{'entailment' if verb == other else 'not_entailment'}")
        (folder / "RTE" / f"{name}.tsv").write_text("\n".join(rows) + "\n")
    return folder


def write_stsb(folder: Path) -> Path:
    """Pairs, 5 where the verbs are the same and 0 where not."""
    (folder / "STS-B").mkdir(parents=True)
    for name, count, seed in (("train", 64, 0), ("dev", 24, 1)):
        draw = random.Random(seed)
        rows = []
        for number in range(count):
            (one, verb), (two, other) = sentence(draw), sentence(draw)
            rows.append(f"genre\tfile\t2017\t{number}\t{5.0 * (verb == other):.3f}\t{one}\t{two}")
        (folder / "STS-B" / f"sts-{name}.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_squad(folder: Path) -> Path:
    """Who does what in a story of eight sentences; each verb is a question. The answer is the sentence's first noun."""
    folder.mkdir(parents=True)
    for name, count, seed in (("train-v1.1", 12, 0), ("dev-v1.1", 6, 1)):
        draw = random.Random(seed)
        paragraphs = []
        for story in range(count):
            lines = [sentence(draw) for _ in range(8)]
            context = " ".join(text for text, _ in lines)
            questions = []
            for number, (text, verb) in enumerate(lines):
                if [other for _, other in lines].count(verb) == 1:
                    answer = text.split()[1]
                    start = sum(len(text) + 1 for text, _ in lines[:number]) + len("the ")
                    questions.append(
                        {
                            "id": f"{name}-{story}-{number}",
                            "question": f"{verb}",
                            "answers": [{"text": answer, "answer_start": start}],
                        }
                    )
            paragraphs.append({"context": context, "qas": questions})
        content = {"version": "1.1", "data": [{"title": "toy", "paragraphs": paragraphs}]}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder
