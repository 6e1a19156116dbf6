"""A manifest is checked before it is used: fields changed, deleted or of another type, with and without a new hash."""

import copy
import json

import pytest
from pipeline_running import config, prepare, text, write

from gptjax import tokenizer
from gptjax.config import ConfigError
from gptjax.corpus.manifest import write_manifest
from gptjax.corpus.tokens.trace import Tracer
from gptjax.data.prepared import MANIFEST, read_manifest
from gptjax.data.tokens import TokenSource

HOSTILE = [None, True, -1, 0, 1, 2**31, 2**70, 0.5, float("nan"), "", "x", "../x", "/etc/passwd", [], [1], {}, {"x": 1}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifest")
    write(folder / "books", [text(i) for i in range(20)])
    write(folder / "web", [text(i) for i in range(100, 120)])
    prepare(config(folder), folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def manifest(folder):
    return read_manifest(folder)


def places(value, path=()):
    """The path of every field, nested ones too; of long lists and sections, only of the first entries."""
    for key in list(value)[:8] if isinstance(value, dict) else range(len(value[:2])):
        yield (*path, key)
        if isinstance(value[key], dict | list):
            yield from places(value[key], (*path, key))


def edits(manifest):
    """(path, manifest with that field changed or deleted)."""
    for path in places(manifest):
        for new in [..., *HOSTILE]:
            edited = copy.deepcopy(manifest)
            inner = edited
            for key in path[:-1]:
                inner = inner[key]
            if new is ...:
                del inner[path[-1]]
            elif inner[path[-1]] == new and type(inner[path[-1]]) is type(new):
                continue
            else:
                inner[path[-1]] = new
            yield path, edited


@pytest.fixture
def edit_manifest(folder, manifest):
    """Replaces the text of the manifest during the test."""
    yield (folder / MANIFEST).write_text
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_every_edit_is_refused(folder, manifest, edit_manifest):
    count = 0
    for path, edited in edits(manifest):
        edit_manifest(json.dumps(edited))
        with pytest.raises(ConfigError) as error:
            read_manifest(folder)
        assert MANIFEST in str(error.value) and "\n" not in str(error.value), path
        count += 1
    assert count > 1500


# The sections that decide which tokens are read, and how. The others only describe how the corpus was made.
DECIDES = {"format", "dtype", "splits", "tokenizer"}
OF_THE_PAST = {"bytes", "sources", "unknown_tokens", "changed_documents", "origins", "lossless", "change", "kind"}


def test_with_a_new_hash_an_edit_is_refused_or_changes_no_token(folder, manifest, edit_manifest):
    """The manifest of a faulty writer never ends in a traceback or changes the tokens that are read."""
    for path, edited in edits(manifest):
        if path[0] in ("options", "stages", "parts", "sources", "skipped", "versions", "hash"):
            continue
        write_manifest(folder, edited)
        try:
            for split in ("train", "validation"):
                source = TokenSource(folder, split, verify=False)
                Tracer(folder, split)
            tokenizer.load(folder)
        except ConfigError:
            continue
        assert not DECIDES & set(path) or OF_THE_PAST & set(path) or path[-1] in ("hash", "size"), (path, source)


@pytest.mark.parametrize("kind", [b"", b"{", b"[]", b"null", b"\xff\xfe{", b'{"format": 2}', b'{"format": true}'])
def test_a_file_that_is_not_a_manifest_is_refused(folder, manifest, edit_manifest, kind):
    (folder / MANIFEST).write_bytes(kind)
    with pytest.raises(ConfigError, match=r"manifest\.json"):
        read_manifest(folder)
    edit_manifest(json.dumps(manifest))


def test_another_tokenizer_in_the_folder_is_noticed(folder, manifest, edit_manifest):
    edited = copy.deepcopy(manifest)
    edited["tokenizer"]["hash"] = "0" * 32
    write_manifest(folder, edited)
    with pytest.raises(ConfigError, match=r"manifest\.json: tokenizer\.hash = '0+', but the folder's tokenizer has"):
        tokenizer.load(folder)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("dtype",), "uint32", "dtype = 'uint32': must be 'uint16'"),
        (("splits", "train", "tokens"), 7, "splits.train.tokens = 7"),
        (("splits", "train", "documents"), 7, "splits.train.documents = 7"),
        (("splits", "train", "shards", 0, "size"), 7, "the size of train-00000.bin = 7"),
        (("tokenizer", "eos_id"), 300, r"tokenizer.eos_id = 300: must be below"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_numbers_that_do_not_agree_are_named(folder, manifest, edit_manifest, place, value, message):
    edited = inner = copy.deepcopy(manifest)
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    write_manifest(folder, edited)
    with pytest.raises(ConfigError, match=message):
        read_manifest(folder)
