import unicodedata

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.corpus.duplicates.exact import exact_hashes, paragraph_hashes, paragraph_spans


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("ab+ \n\t\u00a0\u3000\x1céÅ\u030a漢"), max_size=8), max_size=12))
def test_hashes_are_equal_where_texts_are_but_for_space_and_composition(texts):
    plain = ["".join(unicodedata.normalize("NFC", text).split()) for text in texts]
    hashes = exact_hashes(texts)
    assert hashes.dtype == np.uint64
    assert (hashes[:, None] == hashes[None]).tolist() == [[a == b for b in plain] for a in plain]


def test_punctuation_and_case_make_a_difference():
    assert len(set(exact_hashes(["a + b", "a - b", "A + b", "a+b "]).tolist())) == 3


def test_paragraphs():
    texts = ["one\n\n two \n \nthree", "", "two", "\n\n \n"]
    flat, offsets = paragraph_hashes(texts)
    assert offsets.tolist() == [0, 3, 3, 4, 4]
    assert flat[1] == flat[3] == exact_hashes(["two"])[0] and len(set(flat.tolist())) == 3
    assert [texts[0][a:b] for a, b in paragraph_spans(texts[0]).tolist()] == ["one", " two ", "three"]
    assert np.diff(paragraph_hashes(["a\nb\n\nc"], "\n")[1]).tolist() == [3]
