"""Refuses files and functions that have grown too long (docs: conventions, "Size and shape"), without exceptions."""

import ast
import subprocess
import sys
from pathlib import Path

SOURCE_LINES = 400
TEST_LINES = 600
FUNCTION_LINES = 60


def is_test(path: Path) -> bool:
    """Tell whether a file is a test by the folder it lies in."""
    return "tests" in path.parts or path.parts[0] == "e2e"


def complaints(path: Path) -> list[str]:
    """Return what is too long in one Python file."""
    text = path.read_text(encoding="utf-8")
    limit = TEST_LINES if is_test(path) else SOURCE_LINES
    lines = text.count("\n")
    found = [f"{path}: {lines} lines, at most {limit}"] if lines > limit else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION_LINES:
                found.append(f"{path}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}")
    return found


def main() -> None:
    """Check every Python file that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    paths = [Path(line) for line in listed.stdout.splitlines() if Path(line).exists()]
    found = [complaint for path in paths for complaint in complaints(path)]
    print("\n".join(found) or f"size: {len(paths)} files are short enough")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
