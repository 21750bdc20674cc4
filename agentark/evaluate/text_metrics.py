"""Text metrics of long answers: ROUGE, token F1 and exact match, BLEU, BERTScore. Values are between 0 and 1."""

import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import regex
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score.rouge_scorer import RougeScorer

from agentark import StudyError

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


class Score(NamedTuple):
    precision: float
    recall: float
    f1: float


def rouge(prediction: str, reference: str, stemmer: bool = True) -> dict[str, Score]:
    """ROUGE-1, -2, -L and -Lsum of one summary, by rouge-score (Lin 2004; google-research/rouge).

    rougeLsum reads a newline as the end of a sentence: put one after each sentence, or it equals rougeL. `stemmer` is
    Porter's, for English words of more than three letters; most published results use it.
    """
    scores = RougeScorer(ROUGE, use_stemmer=stemmer).score(reference, prediction)
    return {name: Score(*score) for name, score in scores.items()}


def exact_match(prediction: str, gold: str) -> bool:
    """Whether two short answers are equal after HotpotQA's normalisation (hotpot_evaluate_v1.py)."""
    return normalised(prediction) == normalised(gold)


def token_f1(prediction: str, gold: str) -> Score:
    """Word overlap of two short answers by HotpotQA's rules (hotpot_evaluate_v1.py).

    An answer "yes", "no" or "noanswer" matches only itself, not a sentence that contains it.
    """
    predicted, true = normalised(prediction), normalised(gold)
    if predicted != true and {predicted, true} & {"yes", "no", "noanswer"}:
        return Score(0.0, 0.0, 0.0)
    predicted_words, true_words = predicted.split(), true.split()
    common = sum((Counter(predicted_words) & Counter(true_words)).values())
    if not common:
        return Score(0.0, 0.0, 0.0)
    precision, recall = common / len(predicted_words), common / len(true_words)
    return Score(precision, recall, 2 * precision * recall / (precision + recall))


def normalised(answer: str) -> str:
    """An answer in lower case, without ASCII punctuation, the articles a, an, the, and extra spaces."""
    bare = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(regex.sub(r"\b(a|an|the)\b", " ", bare).split())


def bleu(prediction: str, references: Sequence[str]) -> float:
    """BLEU-4 of one answer against its references, by nltk, with the settings of TruthfulQA's own evaluation.

    These are sacrebleu's tokenize="intl" (punctuation split off, case kept) and smooth_method="exp" (nltk's method 3),
    without effective order: fewer than four tokens score 0. TruthfulQA's measure of an answer is its highest BLEU with
    a correct answer minus its highest with an incorrect one. Raises StudyError without a reference.
    """
    if not references:
        raise StudyError("BLEU needs at least one reference; give the question's answers")
    tokens = international(prediction)
    if len(tokens) < 4:
        return 0.0
    return float(
        sentence_bleu([international(r) for r in references], tokens, smoothing_function=SmoothingFunction().method3)
    )


def international(text: str) -> list[str]:
    """Tokens of mteval-v14's international tokenisation: symbols, and punctuation outside numbers, are split off."""
    text = regex.sub(r"(\P{N})(\p{P})", r"\1 \2 ", text)
    text = regex.sub(r"(\p{P})(\P{N})", r" \1 \2", text)
    return regex.sub(r"(\p{S})", r" \1 ", text).split()


def bert_score(
    predictions: Sequence[str], references: Sequence[str], model: str | Path, layer: int, batch_size: int = 64
) -> list[Score]:
    """BERTScore of each prediction with its reference (Zhang et al. 2020), by bert-score; not rescaled, no idf weights.

    `model` is a folder with a checkpoint and its tokenizer, or a name on the Hugging Face hub; `layer` is the layer
    whose vectors are compared. The usual choice for English is "roberta-large" with layer 17; "bert-base-uncased" goes
    with 9 and "microsoft/deberta-xlarge-mnli", the authors' recommendation, with 40. Values of different models or
    layers are not comparable. An empty text scores 0. Raises StudyError if the numbers of texts differ or the model
    cannot be loaded at that layer.
    """
    if len(predictions) != len(references):
        raise StudyError(f"{len(predictions)} predictions but {len(references)} references; give one for each")
    from bert_score import BERTScorer  # loads torch and transformers, which the other metrics do not need
    from transformers import AutoTokenizer

    try:
        scorer = BERTScorer(model_type=str(model), num_layers=layer, batch_size=batch_size)
        config = scorer._model.config
        # RoBERTa counts positions from 2. With transformers 5, bert-score's own tokenizer may lack a model's length,
        # and it omits the space before the first word that published results include.
        room = config.max_position_embeddings - (2 if "roberta" in config.model_type else 0)
        scorer._tokenizer = AutoTokenizer.from_pretrained(str(model), add_prefix_space=True, model_max_length=room)
    except (OSError, ValueError, AssertionError) as error:
        raise StudyError(f"BERTScore: {model} does not load at layer {layer}: {str(error).splitlines()[0]}") from error
    scores = [Score(0.0, 0.0, 0.0)] * len(predictions)  # of an empty text
    full = [i for i, pair in enumerate(zip(predictions, references, strict=True)) if all(text.strip() for text in pair)]
    if full:
        columns = scorer.score([predictions[i] for i in full], [references[i] for i in full])
        for i, *row in zip(full, *(column.tolist() for column in columns), strict=True):
            scores[i] = Score(*row)
    return scores
