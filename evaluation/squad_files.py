"""SQuAD 1.1's JSON: articles, their paragraphs, and the questions that a paragraph answers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.sources.record import printable
from evaluation.examples import Answer, Example, Split


def read_squad(path: Path) -> Split:
    """Its questions, as (question, context) with all gold answers.

    Errors: OSError for a file that cannot be read, ValueError for one that is not SQuAD 1.1, naming the question.
    """
    try:
        articles = json.loads(path.read_bytes())["data"]
        examples = [example for number, article in enumerate(articles) for example in _article(path, number, article)]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error}). Is the file complete?") from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not in SQuAD's form ({error!r}). Give train-v1.1.json or dev-v1.1.json") from error
    if not examples:
        raise ValueError(f"{path}: no questions. Give train-v1.1.json or dev-v1.1.json")
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:  # predictions are kept by id
            raise ValueError(f"{path}, question '{printable(example.id)}': the id occurs twice. Leave one of them out")
        seen.add(example.id)
    return Split(tuple(examples), (path,))


def question_of(place: str, row: dict[str, Any], answers: tuple[Answer, ...]) -> Example:
    """The example of a row {"id", "question", "context"}. Errors: ValueError for answers that are not in the context."""
    if not answers:
        raise ValueError(f"{place}: no answer. Questions without one are SQuAD 2.0's: give a file of v1.1")
    for answer in answers:
        found = row["context"][answer.start : answer.start + len(answer.text)] if answer.start >= 0 else ""
        if found != answer.text:
            raise ValueError(
                f"{place}, answer_start {answer.start}: the context has '{printable(found)}' there, not "
                f"'{printable(answer.text)}'. Offsets count characters of the context as it was published"
            )
    return Example(row["id"], (row["question"], row["context"]), answers)


def _article(path: Path, number: int, article: dict[str, Any]) -> Iterator[Example]:
    for paragraph in article["paragraphs"]:
        for question in paragraph["qas"]:
            title = printable(article.get("title", f"number {number + 1}"))
            place = f"{path}, article '{title}', question '{printable(question['id'])}'"
            answers = tuple(Answer(answer["text"], answer["answer_start"]) for answer in question["answers"])
            yield question_of(place, {**question, "context": paragraph["context"]}, answers)
