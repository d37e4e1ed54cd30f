"""From the arguments of `hunmin tune` to the plan of a job. What is not given stays the server's to choose."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from hunmin_contracts.datasets import Shares
from hunmin_contracts.products import Product
from hunmin_contracts.tuning import EncoderKind, Hyperparameters, TuningTemplate
from hunmin_contracts.tuning_jobs import JobPlan
from pydantic import ValidationError

from hunmin.cli.terminal import UsageError

_NO_TEMPLATE = """say what to learn, for example
  --prompt '{review}<|VIRTUAL_PROMPT_0|> 이 영화는' --answer '{label}' --verbalizer '0= 최악' '1= 최고'
where {review} and {label} are columns of the file; or name by --template a JSON file of prompt, answer, verbalizers,
or by --product one that ships: `curl -H "Authorization: Bearer $HUNMIN_API_KEY" URL/studio/v1/products` lists them."""


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that a plan is made of; one that is not given leaves no attribute."""
    _add_template(parser.add_argument_group("what to learn"))
    _add_hyperparameters(parser.add_argument_group("how to learn it"))
    rows = parser.add_argument_group("which rows")
    _add(rows, "--train-rows", int, "use the first N rows of the training part", metavar="N")
    _add(rows, "--shares", _shares, "how rows are divided: train, validation, test (8,1,1)", metavar="A,B,C")
    _add(rows, "--split-seed", int, "divide them in another way", metavar="SEED")


def plan_of(options: argparse.Namespace, product: Product | None = None) -> JobPlan:
    """Return the plan, begun from `product`; UsageError where the arguments make none."""
    given = vars(options)
    begun = {} if product is None else product.model_dump(exclude_unset=True)
    template = begun.get("template", {})
    if "template" in given:
        template |= _template_file(given["template"])
    template |= _chosen(given, TuningTemplate.model_fields)
    if not {"prompt", "answer"} <= template.keys():
        raise UsageError(_NO_TEMPLATE)
    fields = ("name", "model", "columns", "train_rows", "shares", "split_seed", "deadline_s")
    wanted = _chosen(begun, ("name", "shares")) | _chosen(given, fields)
    if "name" not in wanted:
        raise UsageError("say by --name what the soft prompt is to be called.")
    wanted["template"] = template
    wanted["hyperparameters"] = begun.get("hyperparameters", {}) | _chosen(given, Hyperparameters.model_fields)
    try:
        return JobPlan.model_validate(wanted)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def _add_template(group: Any) -> None:
    _add(
        group,
        "--template",
        Path,
        "a JSON file of prompt, answer, verbalizers …; what follows overrides it",
        metavar="PATH",
    )
    _add(group, "--prompt", str, "text with {column}s and slots <|VIRTUAL_PROMPT_0|>, …", metavar="TEXT")
    _add(group, "--answer", str, "text with {column}s: all that is learned", metavar="TEXT")
    group.add_argument(
        "--verbalizer", dest="verbalizers", action=_Pairs, nargs="+", metavar="LABEL=TEXT", default=argparse.SUPPRESS,
        help="what the model answers for each value of the answer's column",
    )  # fmt: skip
    _add(group, "--examples", int, "rows with their answers before each prompt (few-shot)", metavar="N")
    _add(group, "--separator", str, "what stands between them (an empty line)", metavar="TEXT")
    _add(
        group,
        "--truncate",
        str,
        "cut the end of this field where a prompt is too long",
        dest="truncated",
        metavar="FIELD",
    )
    group.add_argument(
        "--column", dest="columns", action=_Pairs, nargs="+", metavar="FIELD=COLUMN", default=argparse.SUPPRESS,
        help="the column of a field that is called otherwise",
    )  # fmt: skip


def _add_hyperparameters(group: Any) -> None:
    for option, kind, text, more in (
        ("--encoder", str, "what makes the soft prompt", {"choices": get_args(EncoderKind)}),
        ("--slots", _sizes, "rows of each slot, as 20 or 10,10", {"metavar": "N,…"}),
        ("--epochs", int, "how often each row is learned from", {"metavar": "N"}),
        ("--batch-size", int, "rows a step", {"metavar": "N"}),
        ("--accumulation", int, "passes a step, each with its part of the batch", {"metavar": "N"}),
        ("--learning-rate", float, "after the warm-up", {"metavar": "RATE"}),
        ("--weight-decay", float, "of AdamW", {"metavar": "RATE"}),
        ("--warmup", float, "part of all steps", {"metavar": "SHARE"}),
        ("--max-gradient-norm", float, "gradients are clipped to it", {"metavar": "NORM"}),
        ("--evaluations-per-epoch", int, "on the validation part", {"metavar": "N"}),
        ("--patience", _patience, "evaluations without a better loss before it stops, or never", {"metavar": "N"}),
        ("--dtype", str, "of the frozen weights; else the fastest", {"choices": ("float32", "bfloat16")}),
        ("--seed", int, "of the encoder and the order of rows", {"metavar": "SEED"}),
    ):
        default = Hyperparameters.model_fields[option[2:].replace("-", "_")].default
        shown = ",".join(map(str, default)) if isinstance(default, list) else default
        _add(group, option, kind, text if default is None else f"{text} ({shown})", **more)


def _add(group: Any, option: str, kind: Any, text: str, **more: Any) -> None:
    group.add_argument(option, type=kind, help=text, default=argparse.SUPPRESS, **more)


def _chosen(given: Mapping[str, Any], fields: Any) -> dict[str, Any]:
    return {field: given[field] for field in fields if field in given}


class _Pairs(argparse.Action):
    """Collects KEY=TEXT into a mapping, over any number of uses."""

    def __call__(self, parser: Any, options: Any, values: Any, option: str | None = None) -> None:
        pairs = dict(getattr(options, self.dest, {}))
        for value in values:
            key, sign, text = value.partition("=")
            if not sign:
                parser.error(f"argument {option}: {value!r} is not {self.metavar}")
            pairs[key] = text
        setattr(options, self.dest, pairs)


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",")]


_sizes.__name__ = "list of sizes"  # argparse says "invalid … value"


def _shares(text: str) -> Shares:
    train, validation, test = (float(share) for share in text.split(","))
    return Shares(train=train, validation=validation, test=test)


_shares.__name__ = "TRAIN,VALIDATION,TEST"


def _patience(text: str) -> int | None:
    return None if text == "never" else int(text)


_patience.__name__ = "patience"


def _template_file(path: Path) -> dict[str, Any]:
    try:
        template = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}.") from None
    if not isinstance(template, dict):
        raise UsageError(f"{path} holds no JSON object of prompt, answer, verbalizers ….")
    return template
