"""The page and the picture of `tuning_table`: figures in, Markdown out. It trains nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import matplotlib
from hunmin_contracts.tuning import EncoderKind, Evaluation, TuningResult
from tuning_table_wordings import Wording

matplotlib.use("Agg")
from matplotlib import pyplot

PAGE = Path(__file__).with_name("tuning_table.md")
NAMES: dict[EncoderKind, str] = {"lstm": "LSTM encoder", "mlp": "MLP encoder", "direct": "direct rows"}
COLORS: dict[EncoderKind, str] = {"lstm": "#136", "mlp": "#2a7", "direct": "#c70"}


@dataclass(frozen=True)
class Cell:
    """One entry of the table."""

    encoder: EncoderKind
    rows: int
    rate: float
    result: TuningResult


@dataclass(frozen=True)
class Choice:
    """What was tried in the search, and how it did."""

    layout: str
    encoder: EncoderKind
    rate: float
    loss: float


@dataclass(frozen=True)
class Figures:
    """Everything that was measured."""

    cells: Sequence[Cell]
    layout: str
    choices: Sequence[Choice]
    wordings: Sequence[tuple[Wording, float]]
    reworded: tuple[Wording, TuningResult]
    characters: Mapping[int, Evaluation]
    budgets: Mapping[int, Mapping[str, int]]

    def of(self, encoder: EncoderKind) -> list[Cell]:
        """Return an encoder's cells, from few reviews to many."""
        return sorted((cell for cell in self.cells if cell.encoder == encoder), key=lambda cell: cell.rows)


def write_page(docs: Path, figures: Figures) -> None:
    """Write `tuning-results.md` and `images/tuning-table.png`."""
    _draw(docs / "images" / "tuning-table.png", figures)
    first = figures.cells[0].result
    best = figures.of("lstm")[-1].result
    wording, second = figures.reworded
    page = Template(PAGE.read_text(encoding="utf-8")).substitute(
        zero_shot=_percent(first.zero_shot),
        few_shot=_percent(_few_shots(figures)[-1]),
        tuned=_percent(best.tuned),
        table=_table(figures),
        layout=figures.layout,
        choices="\n".join(
            f"| {each.layout} | {NAMES[each.encoder]} | {each.rate:g} | {each.loss:.4f} |" for each in figures.choices
        ),
        wordings="\n".join(f"| {_shown(each)} | {100 * share:.1f} |" for each, share in figures.wordings),
        wording=_shown(wording),
        second_zero_shot=_percent(second.zero_shot),
        second_few_shot=_percent(second.few_shot),
        second_tuned=_percent(second.tuned),
        budgets="\n".join(
            f"| {rows:,} | {each['batch_size']} | {each['epochs']} | {each['patience']} |"
            for rows, each in figures.budgets.items()
        ),
        steps="\n".join(
            f"| {NAMES[cell.encoder]} | {cell.rows:,} | {cell.rate:g} | {cell.result.best_step:,} of "
            f"{cell.result.steps:,} | {cell.result.train_loss:.3f} | {cell.result.validation_loss:.3f} |"
            for cell in figures.cells
        ),
    )
    (docs / "tuning-results.md").write_text(page, encoding="utf-8")


def _few_shots(figures: Figures) -> list[Evaluation]:
    return [cell.result.few_shot for cell in figures.of("lstm")]


def _table(figures: Figures) -> str:
    zero = figures.cells[0].result.zero_shot
    lines = [("base model, zero-shot", [zero] * len(figures.budgets)), ("base model, few-shot", _few_shots(figures))]
    lines += [(f"**{NAMES[each]}**", [cell.result.tuned for cell in figures.of(each)]) for each in NAMES]
    lines.append(("characters, logistic regression", [figures.characters[rows] for rows in sorted(figures.budgets)]))
    return "\n".join(f"| {name} | {' | '.join(map(_both, found))} |" for name, found in lines)


def _both(found: Evaluation) -> str:
    return f"{_percent(found)} ({100 * (found.macro_f1 or 0):.1f})"


def _percent(found: Evaluation) -> str:
    return f"{100 * (found.accuracy or 0):.2f}"


def _shown(wording: Wording) -> str:
    question = wording.question.replace("\n", "⏎")
    return f"`{{document}}{question}` → `{wording.negative}`, `{wording.positive}`"


def _draw(path: Path, figures: Figures) -> None:
    sizes = sorted(figures.budgets)
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    places = range(len(sizes))
    for encoder, name in NAMES.items():
        shares = [100 * (cell.result.tuned.accuracy or 0) for cell in figures.of(encoder)]
        axes.plot(places, shares, marker="o", color=COLORS[encoder], label=f"tuned, {name}")
    axes.plot(
        places,
        [100 * (figures.characters[rows].accuracy or 0) for rows in sizes],
        marker="x",
        color="#999",
        linestyle=":",
        label="characters, logistic regression",
    )
    few = [100 * (each.accuracy or 0) for each in _few_shots(figures)]
    axes.plot(places, few, marker="s", color="#c44", linestyle="--", label="base model, few-shot")
    zero = 100 * (figures.cells[0].result.zero_shot.accuracy or 0)
    axes.axhline(zero, color="#c44", linewidth=1, label="base model, zero-shot")
    axes.set_xticks(list(places), [f"{rows:,}" for rows in sizes])
    axes.set(xlabel="reviews to train with", ylabel="accuracy on 2,000 test reviews, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
