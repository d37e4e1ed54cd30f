"""`make tuning-table`: Table 4 of the paper with the product "sentiment" and the starter model, on a laptop.

Three encoders, each tuned on 70, 2,000 and 4,000 reviews and judged on the same 2,000 others, beside the base model
alone, with examples in its prompt, and a classifier of characters. What is free (where the rows of the soft prompt
stand, each encoder's learning rate) is chosen before on the 500 reviews for validation; the folders of that search
hold no test review. So is a second wording: the one with which the base model alone does best of those compared.
Every run is a job folder of the trainer, below `results/tuning-table`: a run that is there is not repeated, one that
was interrupted goes on. Writes docs/tuning-results.md and its picture.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hunmin_contracts.tuning import EncoderKind, Evaluation, Hyperparameters, TuningResult
from hunmin_tuning.datasets.splits import assign
from hunmin_tuning.products.catalogue import find_product, sample_path
from hunmin_tuning.trainer.job import JobFolder, JobRow, TrainerJob
from tuning_table_page import Cell, Choice, Figures, write_page
from tuning_table_wordings import Wording, zero_shot

ROOT = Path(__file__).parents[2]
STARTER = ROOT / "training" / "models" / "starter"
RUNS = Path(__file__).parent / "results" / "tuning-table"

ENCODERS: tuple[EncoderKind, ...] = ("lstm", "mlp", "direct")
# The same for every encoder. Fewer reviews are seen more often, in smaller batches: so there are enough steps.
BUDGETS = {
    70: {"epochs": 30, "batch_size": 8, "patience": 10},
    2000: {"epochs": 16, "batch_size": 32, "patience": 4},
    4000: {"epochs": 12, "batch_size": 32, "patience": 4},
}
SEARCHED_ON, SEARCH = 2000, {"epochs": 4, "batch_size": 32, "patience": None}
RATES = (0.002, 0.005, 0.02)
FIRST_RATE = 0.005  # of the comparison of layouts


@dataclass(frozen=True)
class Layout:
    """Where the rows of the soft prompt stand: slots before the review and behind it."""

    before: str
    after: str
    slots: tuple[int, ...]


LAYOUTS = {
    "before": Layout("<|VIRTUAL_PROMPT_0|>", "", (20,)),
    "after": Layout("", "<|VIRTUAL_PROMPT_0|>", (20,)),
    "around": Layout("<|VIRTUAL_PROMPT_0|>", "<|VIRTUAL_PROMPT_1|>", (10, 10)),
}
WORDINGS = (
    Wording("\n평가:", " 부정", " 긍정"),  # the product's
    Wording("\n평가:", " 최악", " 최고"),
    Wording("\n평가:", " 재미없다", " 재미있다"),
    Wording(" 총평:", " 부정", " 긍정"),
    Wording(" 총평:", " 최악", " 최고"),
    Wording(" 한마디로", " 최악", " 최고"),
    Wording(" 한마디로", " 재미없다", " 재미있다"),
    Wording(" 한마디로", " 재미없다", " 재밌다"),
    Wording("\n한마디로", " 재미없다", " 재밌다"),
)


@dataclass(frozen=True)
class Run:
    """One job: of so many reviews, in a wording and a layout, by an encoder.

    `is_search`: judged by the validation part alone.
    """

    layout: str
    encoder: EncoderKind
    rate: float
    rows: int
    is_search: bool = False
    wording: int = 0

    @property
    def folder(self) -> Path:
        """Where it lies."""
        kind = "search" if self.is_search else "cell"
        return RUNS / f"{kind}-{self.wording}-{self.layout}-{self.encoder}-{self.rate}-{self.rows}"

    def job(self) -> TrainerJob:
        """Return what the trainer is told; one thread, so that a run can be repeated to the last bit."""
        layout = LAYOUTS[self.layout]
        budget = SEARCH if self.is_search else BUDGETS[self.rows]
        parameters = {"encoder": self.encoder, "slots": layout.slots, "learning_rate": self.rate} | budget
        return TrainerJob(
            template=WORDINGS[self.wording].template(before=layout.before, after=layout.after),
            model_folder=STARTER,
            hyperparameters=Hyperparameters.model_validate(parameters),
            threads=1,
        )


def sample() -> list[JobRow]:
    """Return the reviews of the sample, divided as a job that asks for the product's shares divides them."""
    product = find_product("sentiment")
    columns, *lines = sample_path(product).read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(columns.split("\t"), line.split("\t"), strict=True)) for line in lines]
    splits = assign(len(rows), product.shares, 0, labels=[row["label"] for row in rows])
    return [
        JobRow(line=number, split=split, fields=row)
        for number, (split, row) in enumerate(zip(splits, rows, strict=True), start=2)
    ]


def rows_of(run: Run, reviews: Sequence[JobRow]) -> Iterable[JobRow]:
    """Yield the first so many of the training part, and the others; for a search validation stands in for the test."""
    yield from [row for row in reviews if row.split == "train"][: run.rows]
    validation = [row for row in reviews if row.split == "validation"]
    yield from validation
    if run.is_search:
        yield from (row.model_copy(update={"split": "test"}) for row in validation)
    else:
        yield from (row for row in reviews if row.split == "test")


def train(run: Run, reviews: Sequence[JobRow]) -> TuningResult:
    """Do a run, or read what it left."""
    files = JobFolder(run.folder)
    if not files.result.exists():
        run.folder.mkdir(parents=True, exist_ok=True)
        files.rows.write_text("".join(f"{row.model_dump_json()}\n" for row in rows_of(run, reviews)), encoding="utf-8")
        files.job.write_text(run.job().model_dump_json(indent=2), encoding="utf-8")
        environ = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "hunmin_tuning.trainer", str(run.folder)], check=True, env=environ)
    result = TuningResult.model_validate_json(files.result.read_bytes())
    judged = "" if run.is_search else f", test accuracy {result.tuned.accuracy:.4f}"
    print(
        f"{run.folder.name}: step {result.best_step}, validation loss {result.validation_loss:.4f}{judged}", flush=True
    )
    return result


def characters(reviews: Sequence[JobRow], rows: int) -> Evaluation:
    """Judge logistic regression on TF-IDF of 1 to 4 characters, from the same reviews."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score, log_loss
    from sklearn.pipeline import make_pipeline

    parts = {
        split: [(row.fields["document"], row.fields["label"]) for row in reviews if row.split == split]
        for split in ("train", "test")
    }
    pipeline = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 4), min_df=2, sublinear_tf=True),
        LogisticRegression(C=10, max_iter=1000),
    )
    pipeline.fit(*zip(*parts["train"][:rows], strict=True))
    texts, labels = zip(*parts["test"], strict=True)
    given = pipeline.predict(texts)
    return Evaluation(
        rows=len(labels),
        loss=log_loss(labels, pipeline.predict_proba(texts)),
        accuracy=float((given == labels).mean()),
        macro_f1=float(f1_score(labels, given, average="macro")),
    )


def search(reviews: Sequence[JobRow], pool: ThreadPoolExecutor) -> tuple[list[Choice], str, dict[EncoderKind, float]]:
    """Return every choice with its validation loss, the best layout, and for it the best rate of each encoder."""
    losses: dict[Run, float] = {}

    def best(runs: list[Run]) -> Run:
        found = pool.map(lambda run: train(run, reviews), runs)
        losses.update({run: result.validation_loss for run, result in zip(runs, found, strict=True)})
        return min(runs, key=losses.__getitem__)

    layout = best([Run(layout, "lstm", FIRST_RATE, SEARCHED_ON, is_search=True) for layout in LAYOUTS]).layout
    rates: dict[EncoderKind, float] = {
        encoder: best([Run(layout, encoder, rate, SEARCHED_ON, is_search=True) for rate in RATES]).rate
        for encoder in ENCODERS
    }
    return [Choice(run.layout, run.encoder, run.rate, loss) for run, loss in losses.items()], layout, rates


def main() -> None:
    """Search, train every cell, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each with one thread")
    args = parser.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    reviews = sample()
    wordings = zero_shot(WORDINGS, reviews, STARTER, RUNS / "wordings.json")
    best_wording = wordings.index(max(wordings))
    with ThreadPoolExecutor(args.jobs) as pool:
        choices, layout, rates = search(reviews, pool)
        runs = [Run(layout, encoder, rates[encoder], rows) for rows in BUDGETS for encoder in ENCODERS]
        reworded = Run(layout, "lstm", rates["lstm"], max(BUDGETS), wording=best_wording)
        *results, second = pool.map(lambda run: train(run, reviews), [*runs, reworded])
    figures = Figures(
        cells=[Cell(run.encoder, run.rows, run.rate, result) for run, result in zip(runs, results, strict=True)],
        layout=layout,
        choices=choices,
        wordings=list(zip(WORDINGS, wordings, strict=True)),
        reworded=(WORDINGS[best_wording], second),
        characters={rows: characters(reviews, rows) for rows in BUDGETS},
        budgets=BUDGETS,
    )
    write_page(ROOT / "docs", figures)
    shipped, measured = find_product("sentiment").template, runs[-1].job().template
    if shipped != measured:
        print(f"product.json asks {shipped.prompt!r}, best on validation was {measured.prompt!r}: correct it")


if __name__ == "__main__":
    main()
