import pytest

from gptjax.corpus.formats import licenses
from gptjax.corpus.formats.licenses import PERMISSIVE, is_allowed

MIT = """MIT License

Copyright (c) 2020 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy of this software … The above copyright
notice and this permission notice shall be included in all copies or substantial portions of the Software.
"""
BSD = (
    "Redistribution and use in source and binary forms, with or without modification … * Redistributions in binary form"
)
GPL = """GNU GENERAL PUBLIC LICENSE
 Version 3, 29 June 2007 … use it with a work licensed under version 3 of the GNU Affero General Public License …
use the GNU Lesser General Public License instead of this License."""


@pytest.mark.parametrize(
    "text, name",
    [
        (MIT, "MIT"),
        (MIT.replace("\n", "\n * "), "MIT"),  # as a comment
        (MIT + GPL, "MIT"),  # the first licence is the project's, the following ones are those of its parts
        ("Permission is hereby granted, free of charge, to any person, without restriction", "MIT-0"),
        (BSD, "BSD-2-Clause"),
        (BSD + " … Neither the name … may be used to endorse or promote products", "BSD-3-Clause"),
        (BSD + " … All advertising materials mentioning features … endorse or promote products", "BSD-4-Clause"),
        ("                 Apache License\n           Version 2.0, January 2004", "Apache-2.0"),
        ("# Licensed under the Apache License, Version 2.0 (the\n# \"License\")", "Apache-2.0"),
        (GPL, "GPL-3.0"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\nVersion 3 … GNU General Public License version 3", "LGPL-3.0"),
        ("under the terms of the GNU General Public License as published by the Free Software\nFoundation; either "
         "version 2 of the License, or (at your option) any later version", "GPL-2.0"),
        ("distributed under the GNU General Public License.", "GPL-1.0"),
        ("Mozilla Public License Version 2.0 … GNU General Public License, Version 2.0", "MPL-2.0"),
        ("Creative Commons Attribution-ShareAlike 4.0 International", "CC-BY-SA-4.0"),
        ("Creative Commons Attribution 4.0 International", "CC-BY-4.0"),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        ("All rights reserved.", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_the_licence_of_a_text_is_recognized(text, name):
    assert licenses.of_text(text) == name


@pytest.mark.parametrize(
    "head, name",
    [
        ("// SPDX-License-Identifier: MIT OR Apache-2.0\n", "MIT OR Apache-2.0"),
        ("/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */", "GPL-2.0-only WITH Linux-syscall-note"),
        ("<!-- SPDX-License-Identifier: CC0-1.0 -->", "CC0-1.0"),
        (f'"""{MIT}"""', "MIT"),
        ("# under the terms of the MIT license; see LICENSE", "MIT"),
        ("import os\n", ""),
    ],
)
def test_the_licence_in_the_head_of_a_file_is_recognized(head, name):
    assert licenses.of_notice(head) == name


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
    assert licenses.of_address(address) == name
