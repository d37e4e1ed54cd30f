"""Gathers findings while rows stream by: of each kind and column a count and the first lines, however many come."""

from dataclasses import dataclass, field

from hunmin_contracts.datasets import SHOWN_LINES, Finding, FindingKind, Severity

MAX_WARNINGS = 200  # of kind and column together; errors are never left out: there are at most a few for each column


@dataclass
class _Gathered:
    severity: Severity
    message: str
    count: int = 0
    lines: list[int] = field(default_factory=list)


class Findings:
    """What was found so far. Of several findings of one kind and column, the first one's message stays."""

    def __init__(self) -> None:
        self._gathered: dict[tuple[FindingKind, Severity, str | None], _Gathered] = {}
        self._warnings = 0

    def add(
        self,
        kind: FindingKind,
        message: str,
        *,
        line: int | None = None,
        column: str | None = None,
        severity: Severity = "error",
        count: int = 1,
    ) -> None:
        """Note that `line` has it. Lines come in order."""
        key = (kind, severity, column)
        gathered = self._gathered.get(key)
        if gathered is None:
            if severity == "warning":
                if self._warnings == MAX_WARNINGS:
                    return
                self._warnings += 1
            gathered = self._gathered[key] = _Gathered(severity, message)
        gathered.count += count
        if line is not None and len(gathered.lines) < SHOWN_LINES and line not in gathered.lines[-1:]:
            gathered.lines.append(line)

    def has_errors(self) -> bool:
        """Say whether one of them is an error."""
        return any(each.severity == "error" for each in self._gathered.values())

    def all(self) -> list[Finding]:
        """Return them, errors first."""
        found = [_finding(kind, column, each) for (kind, _, column), each in self._gathered.items()]
        return sorted(found, key=lambda each: each.severity != "error")


def _finding(kind: FindingKind, column: str | None, each: _Gathered) -> Finding:
    return Finding(
        kind=kind, severity=each.severity, message=each.message, column=column, count=each.count, lines=each.lines
    )
