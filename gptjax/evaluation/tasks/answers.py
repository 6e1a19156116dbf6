"""Scores of a generated answer: exact match, SQuAD's exact match and token F1, the final number, ROUGE.

SQuAD's rule (Rajpurkar et al., 2016; the published script of version 1.1): both texts are lower-cased, ASCII
punctuation and then the words a, an and the are removed, and white space is collapsed. The best of several references
counts. If nothing is left of both texts, F1 is 1 as in the script of version 2.0, which agrees with exact match; the
script of version 1.1 gives 0.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_MARK = "####"  # before the final number in GSM8K's answers
ROUGE_KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def squad_normalized(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def squad_f1(answer: str, reference: str) -> float:
    """The harmonic mean of precision and recall of the tokens that both texts share."""
    ours, theirs = squad_normalized(answer).split(), squad_normalized(reference).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def final_number(text: str) -> Decimal | None:
    """The number after the last ####, otherwise the last number of the text; None without a number. 1,200 is 1200."""
    _, mark, after = text.rpartition(_MARK)
    numbers = _NUMBER.findall(after)
    if not numbers:
        return None
    try:
        return Decimal((numbers[0] if mark else numbers[-1]).replace(",", ""))
    except InvalidOperation:
        return None


def _best(score: Callable[[str, str], float]) -> Callable[[str, Sequence[str]], float]:
    return lambda answer, references: max(score(answer, reference) for reference in references)


def _same_number(answer: str, reference: str) -> float:
    number = final_number(answer)
    return float(number is not None and number == final_number(reference))


SCORES: dict[str, Callable[[str, Sequence[str]], float]] = {
    "exact_match": _best(lambda answer, reference: float(answer.strip() == reference.strip())),
    "squad_exact_match": _best(
        lambda answer, reference: float(squad_normalized(answer) == squad_normalized(reference))
    ),
    "squad_f1": _best(squad_f1),
    "final_number": _best(_same_number),
}


def rouge_scores(answer: str, references: Sequence[str], kinds: Sequence[str]) -> dict[str, float]:
    """F-measures by `rouge-score` with stemming, each for its best reference. kinds: some of ROUGE_KINDS."""
    from rouge_score import rouge_scorer  # slow to import; installed by the extra `eval`

    scorer = rouge_scorer.RougeScorer(list(kinds), use_stemmer=True)
    return {kind: score.fmeasure for kind, score in scorer.score_multi(list(references), answer).items()}
