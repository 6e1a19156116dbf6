"""A reader leaves out a document at which the process ended, and reads all others."""

import io
import json
import tarfile
import zipfile

import pytest

from gptjax.corpus.engine.journal import Journal
from gptjax.corpus.sources import Skipped, kind_named
from gptjax.corpus.stages.extract import _documents

WORDS = "some words that fill a document with a text that is long enough to be read "
RECORD = "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://a.org/{0}\r\nContent-Type: text/plain\r\n"
LATEX = "\\documentclass{{article}}\\begin{{document}}Paper {0}. {1}\\end{{document}}"


def text(number):
    return f"Document {number}. {WORDS * 10}"


def lines(folder):
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text(i)}) + "\n" for i in range(3)))


def pages(folder):
    bodies = [text(i).encode() for i in range(3)]
    (folder / "a.wet").write_bytes(
        b"".join(
            RECORD.format(i).encode() + b"Content-Length: %d\r\n\r\n%s\r\n\r\n" % (len(body), body)
            for i, body in enumerate(bodies)
        )
    )


def books(folder):
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"{i}.txt", text(i))


def articles(folder):
    some = [{"title": f"T{i}", "text": f"T{i}\n{text(i)}", "url": f"https://en.wiki/{i}"} for i in range(3)]
    (folder / "wiki_00").write_text("".join(json.dumps(one) + "\n" for one in some))


def pairs(folder):
    (folder / "a.tsv").write_text("".join(f"source {i}\ttarget {i}\n" for i in range(3)))


def papers(folder):
    with tarfile.open(folder / "a.tar", "w") as archive:
        for i in range(3):
            raw = LATEX.format(i, WORDS * 20).encode()
            member = tarfile.TarInfo(f"{i}.tex")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))


KINDS = {"text": lines, "tables": lines, "web": pages, "books": books, "wikipedia": articles, "pairs": pairs}
KINDS |= {"papers": papers}


class Recorded(Journal):
    def __init__(self, ends=None):
        super().__init__(ends=ends)
        self.places = []

    def begin(self, place, share=1):
        self.places.append(place)
        return super().begin(place, share)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_leaves_out_what_its_journal_sets_aside_and_nothing_else(tmp_path, kind):
    KINDS[kind](tmp_path)
    reader = kind_named(kind)
    options = {**reader.OPTIONS, "least_characters": 10}
    (piece,) = reader.find(str(tmp_path), options)
    source = {"kind": kind, "options": options}

    def read(journal):
        skipped = Skipped(journal)
        return [document.text for document in _documents(piece, source, skipped)], skipped

    journal = Recorded()
    whole, _ = read(journal)
    assert len(whole) == 3
    inside = [place for place in journal.places if place != piece.uri and " after document " not in place]
    assert len(set(inside)) == len(inside) == 3
    for number, place in enumerate(inside):
        left, skipped = read(Recorded({place: ["SIGSEGV"] * 3}))
        assert left == whole[:number] + whole[number + 1 :]
        assert skipped.set_aside == [(place, "its process ended: SIGSEGV")]
        assert skipped["unreadable: its process ended: SIGSEGV"] == 1

    left, skipped = read(Recorded({f"{piece.uri} after document 1": ["exit status 1"] * 3}))
    assert left == whole[:1] and skipped.total() == 1, "what cannot be left out ends the file"
    assert read(Recorded({piece.uri: ["SIGSEGV"] * 2 + ["SIGBUS"]}))[0] == []
