"""The table of values in the chart's README, made from its schema: checked, or written with `--write`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "charts" / "hunmin"
_BEGIN, _END = "<!-- values: begin -->", "<!-- values: end -->"
Schema = dict[str, Any]


class Reference:
    """The rows of the table. What several keys share is described at the first of them."""

    def __init__(self, definitions: Schema) -> None:
        self._definitions = definitions
        self._described: set[str] = set()

    def rows(self, schema: Schema, values: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
        """Yield path, default and description of every key below a part of the schema."""
        for name, part in schema.get("properties", {}).items():
            default = values.get(name) if isinstance(values, dict) else None
            if "description" not in part:
                raise SystemExit(f"{path}{name} has no description in values.schema.json.")
            yield f"{path}{name}", _written(default), part["description"]
            yield from self._below(part, default, f"{path}{name}.")

    def _below(self, part: Schema, values: Any, path: str) -> Iterator[tuple[str, str, str]]:
        reference = part.get("$ref", "").rpartition("/")[2]
        if reference in self._described:
            return
        whole = self._definitions[reference] if reference else part
        if whole.get("type") == "object" and "$comment" not in whole:  # a comment says that it is Kubernetes' own
            self._described |= {reference} if reference else set()
            yield from self.rows(whole, values, path)
            others = whole.get("additionalProperties")
            if isinstance(others, dict):
                yield from self._below(others, None, f"{path}*.")


def _written(value: Any) -> str:
    """Return a default as the table shows it: that of an object stands in the rows of its keys."""
    if value is None or isinstance(value, dict):
        return ""
    return f"`{json.dumps(value, ensure_ascii=False)}`" if value != "" else "empty"


def table() -> str:
    """Return the table."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    lines = ["| value | default | |", "|---|---|---|"]
    found = Reference(schema["definitions"]).rows(schema, values)
    lines += [f"| `{path}` | {default} | {about} |" for path, default, about in found]
    return "\n".join(lines)


def renewed(readme: str) -> str:
    """Return the README with the table of today."""
    before, _, rest = readme.partition(_BEGIN)
    return f"{before}{_BEGIN}\n\n{table()}\n\n{_END}{rest.partition(_END)[2]}"


def main() -> None:
    """Write or check."""
    path = CHART / "README.md"
    readme = path.read_text(encoding="utf-8")
    if sys.argv[1:] == ["--write"]:
        path.write_text(renewed(readme), encoding="utf-8")
    elif readme != renewed(readme):
        sys.exit(f"{path.name} of the chart is not up to date: run `python e2e/lint/chart_values.py --write`")
    else:
        print("values: the chart's README is up to date")


if __name__ == "__main__":
    main()
