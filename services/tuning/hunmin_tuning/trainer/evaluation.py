"""How good answers are: accuracy and macro-F1 of labels, exact match and BLEU of texts, and the loss of both."""

from collections import Counter
from collections.abc import Sequence

import sacrebleu
from hunmin_contracts.tuning import Evaluation
from hunmin_text.pieces import split_pieces

from hunmin_tuning.trainer.answers import Answer
from hunmin_tuning.trainer.preparation import Question


def mean_loss(answers: Sequence[Answer]) -> float:
    """Return the nats per answer token."""
    return sum(answer.nats for answer in answers) / sum(answer.tokens for answer in answers)


def accuracy(questions: Sequence[Question], answers: Sequence[Answer]) -> float:
    """Return the share of labels that are right."""
    right = sum(one.reference == other.given for one, other in zip(questions, answers, strict=True))
    return right / len(questions)


def evaluate(questions: Sequence[Question], answers: Sequence[Answer], *, are_labels: bool) -> Evaluation:
    """Judge the answers to the test part."""
    wanted = [question.reference for question in questions]
    given = [answer.given or "" for answer in answers]
    loss = mean_loss(answers)
    if are_labels:
        return Evaluation(
            rows=len(wanted), loss=loss, accuracy=accuracy(questions, answers), macro_f1=_macro_f1(wanted, given)
        )
    matches = sum(one.strip() == other.strip() for one, other in zip(wanted, given, strict=True))
    return Evaluation(rows=len(wanted), loss=loss, exact_match=matches / len(wanted), bleu=_bleu(wanted, given))


def _macro_f1(wanted: Sequence[str], given: Sequence[str]) -> float:
    """Return the mean F1 of the labels that occur in either, as scikit-learn counts it."""
    right = Counter(one for one, other in zip(wanted, given, strict=True) if one == other)
    either = Counter(wanted) + Counter(given)
    return sum(2 * right[label] / count for label, count in either.items()) / len(either)


def _bleu(wanted: Sequence[str], given: Sequence[str]) -> float:
    """Return corpus BLEU over morphemes, 0 to 100.

    They are cut by the MeCab dictionary that the platform has: sacrebleu's `ko-mecab` would bring another copy of it.
    """
    hypotheses, references = ([" ".join(_morphemes(text)) for text in texts] for texts in (given, wanted))
    return float(sacrebleu.corpus_bleu(hypotheses, [references], tokenize="none", force=True).score)


def _morphemes(text: str) -> list[str]:
    return [piece for piece in map(str.strip, split_pieces(text)) if piece]
