import re
import textwrap

import numpy as np
import pytest
from license_examples import APACHE_NOTICE, BSD2, BSD3, GPL, MIT, MIT_WITHOUT_TITLE

from gptjax.corpus.formats import license_manifests, license_names, license_passages, license_texts, licenses
from gptjax.corpus.formats.license_names import PERMISSIVE, is_allowed

WORDS = {name: " ".join(words) for name, words in reversed(license_texts.known().texts)}
UNKNOWN = license_names.UNKNOWN_TERMS
COMMONS_CLAUSE = """"Commons Clause" License Condition v1.0

The Software is provided to you by the Licensor under the License, as defined below, subject to the following condition.
Without limiting other conditions in the License, the grant of rights under the License will not include, and the
License does not grant to you, the right to Sell the Software."""
NETWORK = "If you run it as a service over a network, you must offer its complete source code to all users."


@pytest.mark.parametrize(
    "text, name",
    [
        (MIT, "MIT"),
        (MIT_WITHOUT_TITLE, "MIT"),
        (MIT.replace("\n", "\n * "), "MIT"),  # as a comment
        (MIT.replace(", ", ",  ").upper(), "MIT"),
        (BSD2, "BSD-2-Clause"),
        (BSD3, "BSD-3-Clause"),
        (BSD3.replace("THE GROUP", "THE REGENTS").replace("the Group", "Berkeley, Inc."), "BSD-3-Clause"),
        (APACHE_NOTICE, "Apache-2.0"),
        ("under the terms of the GNU General Public License as published by the Free Software\nFoundation; either "
         "version 2 of the License, or (at your option) any later version", "GPL-2.0"),
        ("Mozilla Public License Version 2.0", "MPL-2.0"),
        ("Creative Commons Attribution-ShareAlike 4.0 International", "CC-BY-SA-4.0"),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        ("All rights reserved.", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_the_licence_of_a_text_is_recognized(text, name):
    assert licenses.of_text(text) == name


@pytest.mark.parametrize(
    "text, name",
    [
        (f"{MIT}\n{GPL}", f"GPL-3.0 AND MIT AND {UNKNOWN}"),  # a title without its text
        (f"{MIT}\n{WORDS['GPL-3.0']}", "GPL-3.0 AND MIT"),
        (f"{MIT}\n{BSD3}", "BSD-3-Clause AND MIT"),
        (f"{MIT}\n{COMMONS_CLAUSE}", f"MIT AND {UNKNOWN}"),
        (f"{COMMONS_CLAUSE}\n\n{APACHE_NOTICE}", f"Apache-2.0 AND {UNKNOWN}"),
        (f"{MIT}\n{NETWORK}", f"MIT AND {UNKNOWN}"),
        (f"{MIT}\nThis package bundles readline, which is under the GPL.", f"MIT AND {UNKNOWN}"),
        (f"{BSD2}\n3. Redistributions must be accompanied by information on how to obtain complete source code.",
         f"BSD-2-Clause AND {UNKNOWN}"),  # as Sleepycat's
        (MIT.replace("Permission is hereby", "No permission is hereby"), f"MIT AND {UNKNOWN}"),
        (MIT.replace("publish, distribute, sublicense, and/or sell copies of the Software, ", ""),
         f"MIT AND {UNKNOWN}"),
        (MIT.replace("any person", "any non-commercial person"), f"MIT AND {UNKNOWN}"),
        (MIT.replace("Somebody", "Somebody. Not for commercial use."), f"MIT AND {UNKNOWN}"),
    ],
)  # fmt: skip
def test_what_a_text_says_besides_a_known_licence_is_not_overlooked(text, name):
    assert licenses.of_text(text) == name
    assert ("BSD" in name and "MIT" in name) or not is_allowed(name, PERMISSIVE)


HPND = """Permission to use, copy, modify, distribute and sell this software and its documentation for any purpose is
hereby granted without fee, provided that the above copyright notice appear in all copies and that both
that copyright notice and this permission notice appear in supporting documentation."""
NO_ADVERTISING = (
    "The name of Acme shall not be used in advertising or publicity pertaining to distribution of the software"
)


@pytest.mark.parametrize(
    "text, name",
    [
        (f"Acme Open Source License Agreement, Version 1.0\n\n{BSD2}", "BSD-2-Clause"),
        (MIT.replace("sublicense", "sub-\nlicense").replace("the rights", "therights"), "MIT"),  # as pages are copied
        (MIT.replace("restriction", "restrictoin").replace("obtaining", "obtainng"), f"MIT AND {UNKNOWN}"),
        (MIT.replace("obtaining", "obtainng"), "MIT"),
        (BSD3.replace("THE GROUP", "ACME LIMITED").replace("the Group", "Acme Limited"), "BSD-3-Clause"),
        (HPND, "HPND-sell-variant"),  # the rest of HPND is optional
        (f"{HPND}\n{NO_ADVERTISING} without specific, written prior permission.", "HPND-sell-variant"),
        (f"This file is available under the following license:\n\n{MIT}", "MIT"),
        (
            f"{MIT}\nOptional exception to the license: As an exception, if, as a result of your compiling your source "
            "code, portions of this Software are embedded into a machine-executable object form of such source code, "
            "you may redistribute such embedded portions in such object form without including the above copyright and "
            "permission notices.",
            "MIT",
        ),
    ],
)
def test_what_changes_nothing_beside_a_known_licence_is_passed_over(text, name):
    assert licenses.of_text(text) == name


@pytest.mark.parametrize(
    "text",
    [
        f"Copyright (c) 1999 Acme. Training of models on this is prohibited.\n\n{MIT}",
        f"{MIT}\nDie Nutzung ist nur zu nichtkommerziellen Zwecken gestattet.",
        MIT.replace("sublicense, ", ""),
        " ".join(MIT.split()).replace(" and associated documentation files", ""),
        f"You need a license\n\nfrom us for production.\n\n{MIT}",
        f"Acme Evaluation License\n\n{MIT}",
        f"Acme Open Source License\nforbids\n\n{MIT}",
        f"{MIT}\nUse is limited and by invitation.",
        f"{MIT}\nThe name of Acme, whose consent is required for use, may not be used to harm.",
        f"{HPND}\n{NO_ADVERTISING} or in commercial products.",
        BSD3.replace("THE GROUP", "THE GROUP, WHO PROHIBITS USE,"),
        f"This file is available for academic use under the following license:\n\n{MIT}",
    ],
)
def test_what_looks_like_a_harmless_passage_hides_no_condition(text):
    assert not is_allowed(licenses.of_text(text), PERMISSIVE)


def test_every_listed_passage_is_passed_over_and_ends_where_it_ends():
    lines = [line for of in license_passages.variants()["passages"] for line in of["lines"].splitlines() if line]
    assert len(lines) == len({*lines}) > 50
    for line in lines:
        while line != (shorter := re.sub(r"\[[^\[\]]*\]", "", line)):
            line = shorter
        said = re.sub(r"\(([^|()]*)\|[^()]*\)", r"\1", line).replace("*", "Acme")
        for words, counts in ((said.split(), False), ([*said.split(), "royalties"], True)):
            rest = license_passages.rest(words, np.ones(len(words), bool))
            assert bool(license_passages.CONDITION.search(rest)) is counts, said


@pytest.mark.parametrize("longest", [400, pytest.param(10_000, marks=pytest.mark.exhaustive)])  # words of a licence
def test_every_known_text_is_recognized_as_itself_also_when_it_is_wrapped_and_signed(longest):
    some = [(name, words) for name, words in WORDS.items() if words.count(" ") < longest]
    assert len(some) >= 30
    for name, words in some:
        text = "Copyright (C) 1999-2024 Ann Example <ann@example.org>\n\n" + textwrap.fill(words, 72).upper()
        assert is_allowed(licenses.of_text(text), (name,)), name
        if name in PERMISSIVE:
            assert not is_allowed(licenses.of_text(f"{text}\n\n{NETWORK}"), PERMISSIVE), name


@pytest.mark.parametrize(
    "head, name",
    [
        ("// SPDX-License-Identifier: MIT OR Apache-2.0\n", "MIT OR Apache-2.0"),
        ("/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */", "GPL-2.0-only WITH Linux-syscall-note"),
        ("<!-- SPDX-License-Identifier: CC0-1.0 -->", "CC0-1.0"),
        (f'"""{MIT}"""', "MIT"),
        ("# under the terms of the MIT license; see LICENSE", "MIT"),
        (textwrap.indent(APACHE_NOTICE, "# "), "Apache-2.0"),
        ("// Use of this source code is governed by a BSD-style license that can be found in the LICENSE file.\n\n"
         "package main\n", "BSD-3-Clause"),
        ("/* Licensed under GPLv3. */\nint f(void);\n", "GPL-3.0"),
        ("# License: BSD 3 clause\nimport os\n", "BSD-3-Clause"),
        (f'"""{MIT}\nSold under the GPL, too."""', f"MIT AND {UNKNOWN}"),
        ('"""Reads a table.\n\nCompatible with the GNU GPL, as our MIT license is.\n"""\n', ""),
        ('"""Tells whether a text is the GNU General Public License, version 3."""\nlicense = None\n', ""),
        ('import os\n\nTEXT = "distributed under the GNU General Public License, version 3"\n', ""),
        ("import os\n", ""),
    ],
)  # fmt: skip
def test_the_licence_in_the_head_of_a_file_is_recognized(head, name):
    assert licenses.of_notice(head) == name


@pytest.mark.parametrize(
    "name, text, expression",
    [
        ("package.json", '{"license": "ISC"}', "ISC"),
        ("package.json", '{"licenses": [{"type": "MIT"}, {"type": "Apache 2.0"}]}', "Apache-2.0 OR MIT"),
        ("package.json", '{"license": "UNLICENSED"}', UNKNOWN),
        ("package.json", '{"license": "SEE LICENSE IN terms.txt"}', ""),
        ("package.json", '{"name": "x"}', ""),
        ("package.json", "[" * 100_000, ""),
        ("Cargo.toml", '[package]\nlicense = "MIT OR Apache-2.0"', "MIT OR Apache-2.0"),
        ("Cargo.toml", '[package]\nlicense = "MIT/Apache-2.0"', "MIT OR Apache-2.0"),
        ("Cargo.toml", "[package]\nlicense.workspace = true", ""),
        ("Cargo.toml", '[workspace.package]\nlicense = "0BSD"', "0BSD"),
        ("pyproject.toml", '[project]\nlicense = {text = "BSD 3-Clause License"}', "BSD-3-Clause"),
        ("pyproject.toml", '[project]\nclassifiers = ["License :: OSI Approved :: MIT License"]', "MIT"),
        ("pyproject.toml", '[tool.poetry]\nlicense = "GPL-3.0-or-later"', "GPL-3.0-or-later"),
        ("pyproject.toml", "[project\n", ""),
        ("setup.cfg", "[metadata]\nlicense = Apache-2.0", "Apache-2.0"),
    ],
)
def test_the_manifest_of_a_project_gives_its_licence(name, text, expression):
    assert license_manifests.of_manifest(name, text) == expression


@pytest.mark.parametrize(
    "expression, allowed",
    [
        ("MIT", True),
        ("mit", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT AND (GPL-2.0+ OR BSD-3-Clause)", True),
        ("MIT OR Apache-2.0 AND GPL-3.0", True),  # AND binds more tightly
        ("GPL-3.0 OR Apache-2.0 AND GPL-3.0", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("MIT OR", False),
        ("(MIT", False),
        ("MIT Apache-2.0", False),
        ("", False),
        ("(" * 10_000, False),
    ],
)
def test_an_expression_is_met_by_allowed_licences(expression, allowed):
    assert is_allowed(expression, PERMISSIVE) is allowed


def test_or_later_keeps_the_name_of_a_licence():
    assert is_allowed("GPL-2.0-or-later", ("GPL-2.0",)) and not is_allowed("GPL-3.0-or-later", ("GPL-2.0",))


@pytest.mark.parametrize(
    "fields, name",
    [
        ("License-Expression: MIT AND PSF-2.0\nClassifier: License :: OSI Approved :: BSD License", "MIT AND PSF-2.0"),
        ("License: Apache 2.0", "Apache-2.0"),
        ("License: BSD 3-Clause License", "BSD-3-Clause"),
        ("License: 3-Clause BSD License", "BSD-3-Clause"),
        ("License: The MIT License (MIT)", "MIT"),
        ("License: MPL-2.0 AND MIT", "MPL-2.0 AND MIT"),
        ("License: " + MIT.replace("\n", "\n        "), "MIT"),
        ("Classifier: License :: OSI Approved :: MIT License", "MIT"),
        ("License: see LICENSE\nClassifier: License :: OSI Approved :: Apache Software License", "Apache-2.0"),
        ("Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)", "GPL-3.0"),
        ("Classifier: License :: OSI Approved :: BSD License\nClassifier: License :: OSI Approved :: Apache Software "
         "License", "Apache-2.0 AND LicenseRef-BSD"),
        ("Classifier: License :: Other/Proprietary License\nClassifier: License :: OSI Approved :: MIT License", ""),
        ("Summary: none", ""),
    ],
)  # fmt: skip
def test_the_metadata_of_a_package_give_its_licence(fields, name):
    assert licenses.of_metadata(f"Metadata-Version: 2.4\nName: x\n{fields}\n\nText\n") == name


@pytest.mark.parametrize(
    "address, name",
    [
        ("http://creativecommons.org/licenses/by-nc-sa/3.0/de", "CC-BY-NC-SA-3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("http://arxiv.org/licenses/nonexclusive-distrib/1.0/", ""),
    ],
)
def test_the_address_of_a_licence_gives_its_name(address, name):
    assert license_names.of_address(address) == name
