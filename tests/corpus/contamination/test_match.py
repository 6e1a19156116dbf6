"""The index finds what a search at every position of every text finds."""

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from planted_duplicates import words

from gptjax.corpus.contamination import index, match
from gptjax.corpus.contamination.evaluations import Item

texts = st.lists(st.sampled_from(["a", "b", "B", "é", "e\u0301", "字", "ส", "c.", "-"]), max_size=14).map(" ".join)


def units(text):
    return words(unicodedata.normalize("NFC", text))


def grams_of(text, n, least):
    """The parts of an evaluation text that must not be in a document."""
    found = units(text)
    if least <= len(found) < n:
        return {tuple(found)}
    return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}


def oracle(sets, documents, n, least):
    """{document: {(item, how many of its n-grams are in the document)}}"""
    found = {}
    for number, document in enumerate(documents):
        inside = units(document)
        here = {tuple(inside[i : i + k]) for k in range(1, n + 1) for i in range(len(inside) - k + 1)}
        shared = {
            item.id: len(here & set().union(*(grams_of(text, n, least) for text in item.texts)))
            for items in sets
            for item in items
        }
        if any(shared.values()):
            found[number] = {(name, count) for name, count in shared.items() if count}
    return found


def search(sets, documents, n, least, folder):
    built = index.build(((f"set{number}", items) for number, items in enumerate(sets)), n, least)
    built.save(folder / "index.npz")
    loaded = index.load(folder / "index.npz")
    found = {}
    for one in match.find(loaded, documents):
        assert one.words.tolist() == sorted(one.words.tolist())
        words_of = {
            gram: tuple(loaded.word_ids[place : place + length].tolist())
            for gram, place, length in zip(
                one.grams.tolist(), loaded.places[one.grams].tolist(), loaded.lengths[one.grams].tolist()
            )
        }
        counts = {}
        for gram in words_of:
            _, items = loaded.pairs_of(np.array([gram]))
            for item in items.tolist():
                counts.setdefault(loaded.items[item], set()).add(words_of[gram])
        found[one.text] = {(name, len(grams)) for name, grams in counts.items()}
    return found


@pytest.mark.parametrize("collide", [False, True])
@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(texts, max_size=3), min_size=1, max_size=4),
    st.lists(texts, max_size=4),
    st.integers(1, 5),
    st.integers(1, 3),
)
@example([["a b é a b"], ["A B e\u0301"]], ["x a-b, é! a b 字", "a b é"], 4, 2)
def test_all_matches_are_found_and_no_others(tmp_path_factory, collide, made, documents, n, least):
    least = min(least, n)
    items = [Item(f"item{number}", tuple(some)) for number, some in enumerate(made)]
    sets = [items[::2], items[1::2]]
    with pytest.MonkeyPatch.context() as patch:
        if collide:  # hashes of two bits in the compared positions, so that many collide

            def few(values, offsets, n, real=index.window_hashes):
                hashes, window_offsets = real(values, offsets, n)
                return hashes & np.uint64(3 << 62), window_offsets

            patch.setattr(index, "window_hashes", few)
            patch.setattr(match, "window_hashes", few)
        found = search(sets, documents, n, least, tmp_path_factory.mktemp("index"))
    assert found == oracle(sets, documents, n, least)


def test_real_sizes_and_the_passage_of_a_match():
    rng = np.random.default_rng(0)
    vocabulary = [f"word{i}" for i in range(300)]
    item = " ".join(rng.choice(vocabulary, 200))
    other = " ".join(rng.choice(vocabulary, 50))
    documents = [" ".join(rng.choice(vocabulary, 20_000)) for _ in range(10)]
    planted = " ".join(item.split()[20:50])
    documents[7] = f"{documents[7]} Well,\n{planted.upper()}. {documents[3]} {other}"
    built = index.build([("one", [Item("a", (item,)), Item("b", (other, "too short"))]), ("two", [])], 13, 8)
    (found,) = match.find(built, documents)
    assert found.text == 7 and len(set(found.grams.tolist())) == 30 - 12 + 50 - 12
    assert match.passage(built, documents[7], found) == planted.upper()[: match.EXAMPLE]


def test_items_that_are_too_short_are_reported():
    built = index.build([("one", [Item("a", ("w " * 8,)), Item("b", ("w " * 7,)), Item("c", ())])], 13, 8)
    assert built.too_short.tolist() == [2] and built.counts == (0, 1)
    assert not list(match.find(built, ["w " * 7, ""]))
    assert [one.text for one in match.find(built, ["", "x " + "W! " * 8])] == [1]
    assert not list(match.find(index.build([], 13, 8), ["anything"]))
