import pytest

from gptjax.corpus.formats import languages


@pytest.mark.parametrize(
    "name, language",
    [
        ("a.py", "python"),
        ("A.CPP", "c++"),
        ("Makefile", "makefile"),
        ("CMakeLists.txt", "cmake"),
        ("x.tar.rs", "rust"),
        ("README.md", "markdown"),
        ("data.json", "json"),
        ("photo.jpg", None),
        ("py", None),
        (".py", None),
    ],
)
def test_a_file_name_gives_the_language(name, language):
    assert next(iter(languages.of_name(name)), None) == language


@pytest.mark.parametrize(
    "name, text, language",
    [
        ("a.h", "int f(void);", "c"),
        ("a.h", "namespace x {\nint f();\n}", "c++"),
        ("a.m", "x = zeros(3);", "matlab"),
        ("a.m", "#import <Foundation/Foundation.h>", "objective-c"),
        ("a.v", "module adder(input a);\nendmodule", "verilog"),
        ("a.v", "Theorem x : forall n, n = n.", "coq"),
        ("a.ts", "let x = 1", "typescript"),
        ("a.ts", '<?xml version="1.0"?><TS/>', "xml"),
        ("a.py", "namespace x", "python"),
    ],
)
def test_the_text_decides_among_languages_with_the_same_suffix(name, text, language):
    assert languages.of_text(name, text) == language and language in languages.of_name(name)


@pytest.mark.parametrize(
    "start, language",
    [
        (b"#!/bin/sh\n", "shell"),
        (b"#!/usr/bin/env python3\n", "python"),
        (b"#!/usr/bin/env -S python3.11 -u\n", "python"),
        (b"#! /usr/local/bin/perl -w\n", "perl"),
        (b"#!/usr/bin/node\n", "javascript"),
        (b"#!/usr/bin/unheard-of\n", ""),
        (b"#!\n", ""),
        (b"\x7fELF", ""),
    ],
)
def test_the_interpreter_line_of_a_script_gives_the_language(start, language):
    assert languages.of_shebang(start) == language


def test_the_table_has_sixty_languages_of_every_kind():
    assert len(languages.LANGUAGES) >= 60
    assert {languages.kind(language) for language in languages.LANGUAGES} == {"code", "prose", "data"}
