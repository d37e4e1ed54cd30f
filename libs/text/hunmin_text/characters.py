"""Character-level BPE, kept for comparison: it loses characters that were too rare in training."""

from __future__ import annotations

import tokenizers

from hunmin_text.tokenizer import Encoding, Tokenizer, Vocabulary, refuse_surrogates


class CharacterTokenizer(Tokenizer):
    """BPE over characters; a character outside the alphabet becomes `<unk>`, which decodes to U+FFFD."""

    def __init__(
        self, backend: tokenizers.Tokenizer, vocabulary: Vocabulary, *, name: str, method: str, digest: str
    ) -> None:
        super().__init__(vocabulary, name=name, method=method, digest=digest)
        backend.encode_special_tokens = True  # a typed "<|endoftext|>" stays text; not kept in tokenizer.json
        self._backend = backend

    def encode(self, text: str) -> list[int]:
        refuse_surrogates(text)
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_with_offsets(self, text: str) -> Encoding:
        refuse_surrogates(text)
        found = self._backend.encode(text, add_special_tokens=False)
        return Encoding(found.ids, found.offsets)
