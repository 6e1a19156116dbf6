import textwrap

import pytest
from license_examples import APACHE_NOTICE, MIT

from gptjax.corpus.formats.comments import blocks, opening, without_license_header

HASHED = textwrap.indent(APACHE_NOTICE, "# ", lambda line: True)
STARRED = "/*\n" + textwrap.indent(MIT, " * ", lambda line: True) + " */\n"


@pytest.mark.parametrize(
    "text, left",
    [
        (f"{HASHED}\nimport os\n", "import os\n"),
        (f"#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n# Copyright 2020 X\n{HASHED}\nimport os\n",
         "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n\nimport os\n"),
        (f"{STARRED}\n/* Adds numbers. */\nint f(void);\n", "/* Adds numbers. */\nint f(void);\n"),
        ("// SPDX-License-Identifier: MIT\n\npackage main\n", "package main\n"),
        ("# Copyright 2020 X\n\n# How it works: by magic.\nx = 1\n", "# How it works: by magic.\nx = 1\n"),
        ('"""Reads. Copyright 2020 X."""\nx = 1\n', '"""Reads. Copyright 2020 X."""\nx = 1\n'),
        ("# Finds copyright lines.\n" * 0 + "# How to read a file.\nx = 1\n", "# How to read a file.\nx = 1\n"),
        ("x = 1\n# Copyright 2020 X\n", "x = 1\n# Copyright 2020 X\n"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_licence_header_is_removed_and_nothing_else(text, left):
    assert without_license_header(text) == left


def test_docstrings_block_comments_and_runs_of_lines_are_parts_of_the_opening_comment():
    assert blocks('# one\n\n# two\n"""three\n\nthree"""\nx = 1\n# four') == [
        "# one\n\n# two",
        '"""three\n\nthree"""',
    ]
    assert blocks("/* one\n two */\n// three\nint x;") == ["/* one\n two */", "// three"]
    assert blocks("x = 1") == []


def test_the_opening_comment_ends_at_the_first_line_of_code():
    assert opening("#!/bin/sh\n# one\n\n# two\nx=1\n# three\n") == "#!/bin/sh\n# one\n\n# two"
    assert opening("/* one\n two */\nint x;") == "/* one\n two */"
    assert opening('r"""one\ntwo"""\nx = 1') == 'r"""one\ntwo"""'
