"""Strings that are hard for a Korean tokenizer."""

from hypothesis import strategies as st

ANYTHING = st.text(st.characters(exclude_categories=["Cs"]))
KOREAN = st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=1)
JAMO = st.text(
    st.sampled_from([chr(c) for r in ((0x1100, 0x1200), (0x3131, 0x318F), (0xA960, 0xA97D)) for c in range(*r)])
)
SPACES = st.text(st.sampled_from(" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u2028\u2029\u3000"))
WORDS = st.sampled_from(
    [
        "영화에서는",
        "<|endoftext|>",
        "<|pad|>",
        "<unk>",
        "👨‍👩‍👧‍👦",
        "\u1100\u1161\u11a8",  # 각, decomposed
        "café",
        "e\u0301",
        "\ufffd",
        "\x00",
        "\u200b\ufeff",
        "▁",
        "Ġ",
        "漢字",
        "ㅋㅋㅋ",
        "1234567이야",
    ]
)
HARD = st.lists(st.one_of(ANYTHING, KOREAN, JAMO, SPACES, WORDS)).map("".join)
