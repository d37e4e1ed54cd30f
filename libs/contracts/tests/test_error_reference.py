"""docs/errors.md is what the table of errors says."""

from pathlib import Path

from hunmin_contracts.errors import reference_page

PAGE = Path(__file__).parents[3] / "docs" / "errors.md"


def test_the_reference_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference_page(), "write what reference_page() returns to docs/errors.md"
