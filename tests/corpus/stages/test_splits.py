import numpy as np
import pytest
from pipeline_running import Here, watch

from gptjax.config import ConfigError
from gptjax.corpus.config import default, source
from gptjax.corpus.documents import is_blank
from gptjax.corpus.pipeline import Pipeline
from gptjax.corpus.sources.listing import list_sources
from gptjax.corpus.stages.splits import LEAST_HELD_OUT, draws, most_held_out, numbered, split_texts, tail_start


def split(texts, keys=None, fraction=0.2, by="document", seed=0):
    keys = np.arange(len(texts), dtype=np.uint64) if keys is None else np.array(keys, np.uint64)
    return list(split_texts(texts, keys, fraction, by, seed))


def sides(count, **options):
    return [side for _, side, _ in split(["x"] * count, **options)]


def test_draws_are_uniform_and_depend_only_on_key_and_seed():
    keys = np.arange(20_000, dtype=np.uint64)
    drawn = draws(keys, 0)
    assert 0 <= drawn.min() and drawn.max() < 1
    np.testing.assert_allclose(np.histogram(drawn, 10, (0, 1))[0], 2000, rtol=0.1)
    np.testing.assert_array_equal(draws(keys[::-1], 0), drawn[::-1])
    for other in (draws(keys, 1), draws(keys + np.uint64(2**40), 0), draws(numbered(5, 20_000), 0)):
        assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.03 and not np.isin(drawn, other).any()


def test_the_held_out_share_is_the_requested_one_and_grows_by_adding_documents():
    few, more = sides(5000), sides(5000, fraction=0.3)
    assert 0.18 < few.count("validation") / 5000 < 0.22
    assert all(b == "validation" for a, b in zip(few, more) if a == "validation")
    assert few != sides(5000, seed=1)
    assert set(sides(100, fraction=0.0)) == {"train"}


def test_documents_with_the_same_key_are_in_the_same_split():
    parts = split([f"text {i}" for i in range(3000)], keys=np.arange(3000) // 3)
    assert [text for _, _, text in parts] == [f"text {i}" for i in range(3000)]
    of = [side for _, side, _ in parts]
    assert of[::3] == of[1::3] == of[2::3] and {"train", "validation"} == set(of)


def test_tails_are_held_out_after_a_line():
    text = "".join(f"line {i}\n" for i in range(1000))
    (_, train, head), (number, validation, tail) = split(["x", text], fraction=0.1, by="tail")[1:]
    assert (train, validation, number) == ("train", "validation", 1) and head + tail == text
    assert head.endswith("\n") and 0.09 < len(tail) / len(text) < 0.11
    text = "title\n" + "x" * 5000
    assert 490 < len(text) - tail_start(text, 0.1) < 510, "no line end is near, so the cut is at the share"


@pytest.mark.parametrize("fraction", [0.0, 0.1])
def test_no_part_is_empty(fraction):
    assert split(["x", "yz"], fraction=fraction, by="tail") == [(0, "train", "x"), (1, "train", "yz")]


@pytest.mark.parametrize("text", ["x\n\n\n", "\n" * 50 + "x", "a line\n" + " \n" * 300, "\u200b\n" * 60 + "the end\n"])
def test_neither_part_of_a_document_is_blank(text):
    parts = split([text], fraction=0.1, by="tail")
    assert "".join(part for *_, part in parts) == text and not any(is_blank(part) for *_, part in parts)


def test_the_held_out_part_is_not_only_the_empty_lines_at_the_end():
    (_, _, train), (_, _, held_out) = split(["".join(f"line {i}\n" for i in range(40)) + "\n" * 100], by="tail")
    assert train.endswith("line 31\n") and held_out.startswith("line 32\n")


def test_no_document_is_a_large_share_of_the_held_out_text():
    """Sizes as in real corpora: most documents are small, most text is in a few, and one has a twentieth of it."""
    sizes = np.random.default_rng(0).lognormal(8, 1.5, 3000).astype(int) + 1
    sizes = np.append(sizes, sizes.sum() // 20)
    texts = ["line\n\n" * (size // 6 + 1) for size in sizes.tolist()]
    total, keys = sum(map(len, texts)), np.arange(len(texts), dtype=np.uint64)
    most = most_held_out(total, 0.05, 0.05)
    shares, whole_shares = [], []
    for seed in (seed for seed in range(300) if draws(keys[-1:], seed) < 0.05):
        for limit, found in ((most, shares), (None, whole_shares)):
            held_out = [len(text) for _, side, text in split_texts(texts, keys, 0.05, "document", seed, limit)
                        if side == "validation"]  # fmt: skip
            found.append(max(held_out) / sum(held_out))
    assert max(shares) < 0.12 and min(whole_shares) > 0.4


def test_the_rest_of_a_long_held_out_document_is_in_no_split():
    long = "".join(f"paragraph {i}\n\n" for i in range(1000))
    texts, keys = [long, "short\n", *["x"] * 50], [5, 5, *range(6, 56)]
    seed = next(seed for seed in range(1000) if draws(np.array([5], np.uint64), seed) < 0.2)
    found = list(split_texts(texts, np.array(keys, np.uint64), 0.2, "document", seed, 1000))
    assert found[0][1] == found[1][1] == "validation", "copies are in the same split"
    assert long.startswith(found[0][2]) and found[0][2].endswith("\n\n") and 500 < len(found[0][2]) <= 1000
    whole = list(split_texts(texts, np.array(keys, np.uint64), 0.2, "document", seed))
    assert found[1:] == whole[1:], "no other document is cut, and none changes its split"


def test_the_held_out_length_of_a_document_changes_only_by_doubling():
    limits = {most_held_out(size, 0.05, 0.05) for size in range(50_000_000, 100_000_000, 999_983)}
    assert len(limits) == 2 and max(limits) == 2 * min(limits) == 131_072 * 2 // 2
    assert 0.025 < min(limits) / (0.05 * 50_000_000) <= 0.05
    assert most_held_out(0, 0.05, 0.05) == most_held_out(1_000_000, 0.05, 0.05) == LEAST_HELD_OUT


def test_one_document_that_cannot_be_divided_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "a.txt").write_text("Words of it.\n" * 50)
    made = default()
    made.cleaning.update(repair=False, language=False)
    made.tokenizer.name = "byte"
    made.sources = (source(name="a", kind="text", path=f"{tmp_path}/a.txt"),)
    listing = list_sources(made.sources, 1000)
    made.split.by = "document"
    with pytest.raises(ConfigError, match=r"split would be empty: there is one document; split\.by = 'tail'"):
        Pipeline(made, listing, tmp_path / "out", Here(), watch)
    assert not (tmp_path / "out").exists()
    for by in ("auto", "tail"):
        made.split.by = by
        Pipeline(made, listing, tmp_path / "out", Here(), watch)
    made.max_document_megabytes = 1e-4  # then it is cut into several
    made.split.by = "document"
    Pipeline(made, listing, tmp_path / "out", Here(), watch)
