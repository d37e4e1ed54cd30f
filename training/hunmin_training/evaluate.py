"""What a trained model is worth: bits per byte, NSMC sentiment zero-shot and p-tuned, sample completions."""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hunmin_text.artefact import load
from hunmin_text.chat import encode_chat
from hunmin_text.tokenizer import Tokenizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from transformers import GPT2LMHeadModel

from hunmin_training.likelihood import bits_per_byte
from hunmin_training.ptuning import Example, Task, tune

ZERO_SHOT_SUFFIX = " 한마디로"
VERBALIZERS = (" 최악", " 최고")  # negative, positive: NSMC's labels 0 and 1
TUNED_ON = 4_000
VALIDATED_ON = 400  # of the 4,000
TESTED_ON = 2_000
PROMPTS = ("이 영화는", "배우들의 연기가", "스토리가", "오랜만에")
QUESTIONS = ("오늘 너무 피곤해", "주말에 뭐 하지?", "영화 추천해 줘")


def read_labelled(path: Path) -> list[tuple[str, int]]:
    """Return (review, label) of an NSMC file: TSV id, document, label; header; no quoting."""
    with path.open(encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines][1:]
    return [(document.strip(), int(label)) for _, document, label in rows if document.strip()]


def sample_reviews(path: Path, count: int, *, seed: int) -> list[tuple[str, int]]:
    """Return `count` labelled reviews drawn with `seed`."""
    return random.Random(seed).sample(read_labelled(path), count)  # noqa: S311  a sample, not a secret


def character_baseline(train: Sequence[tuple[str, int]], test: Sequence[tuple[str, int]]) -> float:
    """Return the accuracy of logistic regression on character 1-to-4-gram TF-IDF."""
    pipeline = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 4), min_df=2, sublinear_tf=True),
        LogisticRegression(C=10, max_iter=1000),
    )
    pipeline.fit(*zip(*train, strict=True))
    return float(pipeline.score(*zip(*test, strict=True)))


def zero_shot(model: GPT2LMHeadModel, tokenizer: Tokenizer, test: Sequence[tuple[str, int]]) -> float:
    """Return the accuracy of comparing the two verbalizers after `REVIEW 한마디로`.

    Each is weighed against its likelihood without a review (Holtzman et al. 2021, arXiv 2104.08315): no label is used.
    """
    suffix = tokenizer.encode(ZERO_SHOT_SUFFIX)
    task = Task(model, label_ids=label_tokens(tokenizer))
    empty = torch.empty(0, model.config.hidden_size)
    prior = task.logits(empty, [Example([tokenizer.eos_id, *suffix], 0)]).log_softmax(-1)  # [1, 2]
    right = 0
    for review, label in test:
        ids = [tokenizer.eos_id, *tokenizer.encode(review)[: task.max_tokens - len(suffix) - 1], *suffix]
        scores = task.logits(empty, [Example(ids, label)]).log_softmax(-1) - prior
        right += int(scores.argmax()) == label
    return right / len(test)


def label_tokens(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the first token of each verbalizer; they must differ."""
    ids = tuple(tokenizer.encode(verbalizer)[0] for verbalizer in VERBALIZERS)
    if len(set(ids)) != len(ids):
        raise SystemExit(f"the verbalizers {VERBALIZERS} begin with the same token")
    return ids


def complete(model: GPT2LMHeadModel, tokenizer: Tokenizer, ids: list[int], *, seed: int) -> str:
    """Return one sampled continuation (temperature 0.7, top-p 0.9, 40 tokens at most)."""
    torch.manual_seed(seed)
    inputs = torch.tensor([ids])
    output = model.generate(
        inputs, attention_mask=torch.ones_like(inputs), do_sample=True, temperature=0.7, top_p=0.9,
        max_new_tokens=40, pad_token_id=tokenizer.pad_id,
    )  # fmt: skip
    new = output[0, len(ids) :].tolist()
    return tokenizer.decode(token for token in new if token != tokenizer.eos_id).strip()


def sample_completions(model: GPT2LMHeadModel, tokenizer: Tokenizer) -> list[dict[str, str]]:
    """Return three completions a prompt and one answer a question, taken as they come: seeds 0, 1, 2."""
    completions = [
        {"prompt": prompt, "completion": complete(model, tokenizer, tokenizer.encode(prompt), seed=seed)}
        for prompt in PROMPTS
        for seed in range(3)
    ]
    answers = [
        {"prompt": question, "completion": complete(model, tokenizer, encode_chat(tokenizer, [turn]), seed=0)}
        for question in QUESTIONS
        for turn in [{"role": "user", "content": question}]
    ]
    return completions + answers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hunmin-train evaluate`."""
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--held-out", type=Path, required=True, help="held_out.txt of the corpus")
    parser.add_argument("--ratings-train", type=Path, required=True, help="NSMC training file")
    parser.add_argument("--ratings-test", type=Path, required=True, help="NSMC test file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")


def run(args: argparse.Namespace) -> None:
    """Measure the model and write the figures."""
    torch.set_num_threads(args.threads)
    tokenizer = load(args.model)
    model = GPT2LMHeadModel.from_pretrained(args.model, dtype=torch.float32, local_files_only=True)
    model.eval()
    held_out = args.held_out.read_text(encoding="utf-8").splitlines()
    labelled = sample_reviews(args.ratings_train, TUNED_ON, seed=args.seed)
    test = sample_reviews(args.ratings_test, TESTED_ON, seed=args.seed)
    figures: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "held_out_reviews": len(held_out),
        "bits_per_byte": bits_per_byte(model, tokenizer, held_out),
        "samples": sample_completions(model, tokenizer),
        "nsmc_zero_shot": zero_shot(model, tokenizer, test),
        "nsmc_characters": character_baseline(labelled, test),
    }
    examples = [Example([tokenizer.eos_id, *tokenizer.encode(review)], label) for review, label in labelled]
    tests = [Example([tokenizer.eos_id, *tokenizer.encode(review)], label) for review, label in test]
    task = Task(model, label_ids=label_tokens(tokenizer))
    prompt = tune(task, examples[VALIDATED_ON:], examples[:VALIDATED_ON], seed=args.seed)
    figures["nsmc_p_tuned"] = task.accuracy(prompt, tests)
    args.out.write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, ensure_ascii=False, indent=1))
