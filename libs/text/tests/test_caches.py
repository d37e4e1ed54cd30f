"""The caches that make the morpheme method fast change nothing else: bounded, and safe between threads."""

from concurrent.futures import ThreadPoolExecutor

from hunmin_text.artefact import load
from hunmin_text.bytelevel import RecentCache
from hunmin_text.tokenizer import Tokenizer

from .conftest import STARTER

WORDS = ["영화", "배우", "감독", "음악", "결말", "연출", "사람", "시간", "이야기", "장면"]
PARTICLES = ["가", "를", "에서", "에서는", "까지도", "만", "처럼", "보다"]
ENDINGS = ["좋았다", "아쉬웠습니다", "재미있네요", "별로였어요"]


def test_a_cache_keeps_at_most_twice_its_limit_and_what_is_used() -> None:
    computed: list[str] = []

    class Lengths(RecentCache):
        def compute(self, text: str) -> tuple[int, ...]:
            computed.append(text)
            return (len(text),)

    cache = Lengths(limit=10)
    for number in range(100):
        assert cache[str(number)] == (len(str(number)),)
        assert cache["kept"] == (4,)
        assert len(cache) <= 10
    assert computed.count("kept") == 1


def test_threads_with_empty_caches_get_what_one_thread_gets(starter: Tokenizer) -> None:
    texts = [f"{word}{particle} {ending}" for word in WORDS for particle in PARTICLES for ending in ENDINGS] * 3
    alone = [starter.encode(text) for text in texts]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(load(STARTER).encode, texts)) == alone
