"""What is taken for personal data, and what is not."""

import time

import pytest
from hunmin_text.personal_data import find_personal_data, is_resident_number, passes_luhn

# Check digits are right, and no number is anybody's: the forms' own examples and numbers of the year 1900.
FOUND = [
    ("000101-1000002은 가짜다", "resident_number", "000101-1000002"),
    ("번호:0001011000002이야", "resident_number", "0001011000002"),
    ("210131-3000000", "resident_number", "210131-3000000"),  # born after check digits ended
    ("카드는 4111-1111-1111-1111이고", "card", "4111-1111-1111-1111"),
    ("4111111111111111로", "card", "4111111111111111"),
    ("378282246310005번", "card", "378282246310005"),
    ("010-1234-5678로 전화해", "phone", "010-1234-5678"),
    ("01012345678이야", "phone", "01012345678"),
    ("+82 10-1234-5678", "phone", "+82 10-1234-5678"),
    ("+82-2-345-6789", "phone", "+82-2-345-6789"),
    ("02)345-6789", "phone", "02)345-6789"),
    ("010-1234-5678", "phone", "010-1234-5678"),
    ("메일은 gildong.hong+a@example.co.kr로", "email", "gildong.hong+a@example.co.kr"),
    ("110-123-456789로 보내", "bank_account", "110-123-456789"),
    ("국민은행 계좌 12345678901234로", "bank_account", "12345678901234"),
]
CLEAN = [
    "000101-1000003",  # its check digit is wrong
    "991332-1000002",  # a month 13
    "0001011000002123",  # digits go on
    "4111-1111-1111-1112",
    "2024-01-15에 봤다",
    "1234567890123 조회",
    "평점 10/10, 1999.12.31",
    "@handle 그리고 a@b",
    "대표번호 1588-1588",
    "버전 1.2.3-4",
    "",
]


@pytest.mark.parametrize(("text", "kind", "quoted"), FOUND)
def test_it_is_found_where_it_stands(text: str, kind: str, quoted: str) -> None:
    (found,) = find_personal_data(text)
    assert (found.kind, text[found.start : found.end]) == (kind, quoted)


@pytest.mark.parametrize("text", CLEAN)
def test_what_only_resembles_it_is_left_alone(text: str) -> None:
    assert find_personal_data(text) == []


def test_several_in_one_text_come_in_order() -> None:
    text = "hong@example.com, 010-1234-5678, 000101-1000002"
    assert [found.kind for found in find_personal_data(text)] == ["email", "phone", "resident_number"]


def test_one_digit_in_ten_passes_a_check() -> None:
    assert sum(is_resident_number(f"000101100000{digit}") for digit in range(10)) == 1
    assert sum(passes_luhn(f"411111111111111{digit}") for digit in range(10)) == 1


@pytest.mark.parametrize("text", ["1-" * 50_000, "a." * 50_000 + "@", "0 1" * 50_000, "9" * 100_000, "a@" * 50_000])
def test_a_long_text_takes_no_long_time(text: str) -> None:
    started = time.process_time()
    find_personal_data(text)
    assert time.process_time() - started < 2
