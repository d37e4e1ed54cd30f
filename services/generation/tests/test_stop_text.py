"""Stop strings: the text never holds one, nor the beginning of one that came to be."""

from hunmin_generation.engine.text import StopText
from hypothesis import given
from hypothesis import strategies as st


class Pieces:
    """A decoder whose token i is the ith of a list of texts; what `flush` gives is the last."""

    def __init__(self, pieces: list[str], left: str = "") -> None:
        self.pieces = pieces
        self.left = left

    def push(self, token_id: int) -> str:
        return self.pieces[token_id]

    def flush(self) -> str:
        return self.left


def released(pieces: list[str], *stop: str, left: str = "") -> tuple[list[str], bool]:
    """Push every piece until a stop string ends the text, and return what was released at each step."""
    text = StopText(Pieces(pieces, left), stop)
    found = []
    for token in range(len(pieces)):
        found.append(text.push(token))
        if text.is_stopped:
            return found, True
    found.append(text.finish())
    return found, text.is_stopped


class TestStop:
    def test_without_stop_strings_all_is_released_at_once(self) -> None:
        assert released(["가", "나"]) == (["가", "나", ""], False)

    def test_a_stop_string_across_tokens_is_cut(self) -> None:
        assert released(["끝이", "다. #", "##", " 더"], "###") == (["끝이", "다. ", ""], True)

    def test_what_may_begin_a_stop_string_is_held_until_it_does_not(self) -> None:
        assert released(["a", "##", "b"], "###") == (["a", "", "##b", ""], False)

    def test_what_is_held_at_the_end_is_released(self) -> None:
        assert released(["a#"], "###") == (["a", "#"], False)

    def test_the_first_of_several_wins(self) -> None:
        assert released(["질문: 뭐? 답변:"], "답변:", "질문:") == ([""], True)

    def test_a_beginning_that_repeats_itself_is_found(self) -> None:
        assert released(["aab", "aab", "aac"], "aabaac") == (["", "aab", ""], True)

    def test_the_last_flush_can_complete_one(self) -> None:
        assert released(["끝"], "끝\ufffd", left="\ufffd") == (["", ""], True)


@given(
    pieces=st.lists(st.text("ab가", max_size=4), max_size=12),
    stop=st.lists(st.text("ab가", min_size=1, max_size=4), max_size=3),
)
def test_any_split_releases_the_text_before_the_first_stop_string(pieces: list[str], stop: list[str]) -> None:
    found, is_stopped = released(pieces, *stop)
    whole, text = "".join(pieces), "".join(found)
    assert whole.startswith(text)
    assert not any(one in text for one in stop)
    assert is_stopped == any(one in whole for one in stop)
    if not is_stopped:
        assert text == whole
