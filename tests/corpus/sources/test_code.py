import csv
import io

import pytest
from license_examples import BSD3, GPL, MIT
from source_reading import close_to_listing, documents, write

from gptjax.config import ConfigError
from gptjax.corpus.documents import BLANK
from gptjax.corpus.sources import code

LINES = "def f(x):\n    return x + 1\n"


def test_source_files_are_read_with_language_licence_and_path(tmp_path):
    write(
        tmp_path, {"LICENSE": MIT, "a.py": LINES, "lib/b.rs": "fn main() {}\n", "README.md": "# Text\n", "c.json": "{}"}
    )
    write(
        tmp_path, {"run": "#!/usr/bin/env bash\necho hello\n", "data.bin": b"\0", ".git/config.py": LINES, "x.csv": "1"}
    )
    found, skipped = documents("code", tmp_path)
    assert [(one.uri.removeprefix(f"{tmp_path}/"), one.language, one.license) for one in found] == [
        ("README.md", "markdown", "MIT"),
        ("a.py", "python", "MIT"),
        ("lib/b.rs", "rust", "MIT"),
        ("run", "shell", "MIT"),
    ]
    assert found[1].text == LINES and not skipped


def test_languages_are_recognized_by_name_and_text(tmp_path):
    write(
        tmp_path,
        {"LICENSE": MIT, "a.py": LINES, "b.h": "class X {\npublic:\n};\n", "c.h": "int f(void);\n", "d.json": "[1]"},
    )
    found, skipped = documents("code", tmp_path, languages=("c++", "json"), leave_out=())
    assert [one.language for one in found] == ["c++", "json"]
    assert skipped == {"language not asked for: c": 1}


def test_the_nearest_licence_applies(tmp_path):
    write(tmp_path, {"LICENSE.md": MIT, "a.py": LINES, "gpl/COPYING": GPL, "gpl/deep/b.py": LINES})
    write(
        tmp_path,
        {"gpl/c.py": f"# SPDX-License-Identifier: 0BSD\n{LINES}", "odd/LICENSE": "All mine.", "odd/d.py": LINES},
    )
    write(tmp_path, {"two/LICENSE-MIT": MIT, "two/LICENSE-GPL": GPL, "two/e.py": LINES, "gpl/license.py": LINES})
    found, skipped = documents("code", tmp_path)
    names = {one.uri.removeprefix(f"{tmp_path}/"): one.license for one in found}
    assert names == {"a.py": "MIT", "gpl/c.py": "0BSD", "two/e.py": "GPL-3.0 OR MIT"}
    assert skipped == {"license not allowed: GPL-3.0": 2, "license unknown": 1}

    assert len(documents("code", tmp_path, licenses=("GPL-3.0",))[0]) == 3  # two/e.py is also available under it
    assert len(documents("code", tmp_path, unknown_license=True)[0]) == 4
    assert len(documents("code", tmp_path, licenses=())[0]) == 6


def licence_of(folder):
    return [one.license for one in documents("code", folder, licenses=())[0] if one.uri.endswith(".py")]


def test_manifests_and_the_folder_licenses_state_a_licence(tmp_path):
    write(tmp_path, {"js/package.json": '{"license": "MIT"}', "js/a.py": LINES, "js/deep/package.json": "{}"})
    write(tmp_path, {"js/deep/b.py": LINES, "rust/Cargo.toml": '[package]\nlicense = "MIT OR Apache-2.0"'})
    write(tmp_path, {"rust/a.py": LINES, "reuse/LICENSES/MIT.txt": MIT, "reuse/LICENSES/BSD-3-Clause.txt": BSD3})
    write(
        tmp_path,
        {"reuse/a.py": LINES, "both/LICENSE": GPL, "both/package.json": '{"license": "MIT"}', "both/a.py": LINES},
    )
    write(tmp_path, {"own/LICENSE": "All mine.", "own/package.json": '{"license": "MIT"}', "own/a.py": LINES})
    assert licence_of(tmp_path / "js") == ["MIT", "MIT"]
    assert licence_of(tmp_path / "rust") == ["MIT OR Apache-2.0"]
    assert licence_of(tmp_path / "reuse") == ["BSD-3-Clause AND MIT"]
    assert licence_of(tmp_path / "both") == ["GPL-3.0 AND MIT"]
    assert licence_of(tmp_path / "own") == [""], "a text that is not known is not overruled"


def test_a_docstring_that_mentions_a_licence_does_not_change_that_of_its_project(tmp_path):
    write(
        tmp_path, {"LICENSE": MIT, "a.py": f'"""Adds.\n\nCompatible with the GNU GPL license, version 3.\n"""\n{LINES}'}
    )
    assert licence_of(tmp_path) == ["MIT"]


def test_a_folder_within_a_git_working_tree_is_under_the_licence_above(tmp_path):
    write(tmp_path, {"LICENSE": MIT, "project/src/a.py": LINES})
    _, skipped = documents("code", tmp_path / "project" / "src")
    assert skipped == {"license unknown": 1}, "files above the working tree belong to another project"
    (tmp_path / ".git").mkdir()
    assert [one.license for one in documents("code", tmp_path / "project" / "src")[0]] == ["MIT"]


def record(*names):
    buffer = io.StringIO()
    csv.writer(buffer).writerows([name, "sha256=x", "1"] for name in names)
    return buffer.getvalue()


def test_licences_of_an_installed_environment_come_from_its_metadata(tmp_path):
    metadata = "Metadata-Version: 2.4\nName: {}\nLicense-Expression: {}\n"
    write(
        tmp_path,
        {
            "LICENSE": GPL,  # a stray one, of one of the packages
            "good/a.py": LINES,
            "good/inner/LICENSE": GPL,
            "good/inner/b.py": LINES,
            "good-1.dist-info/METADATA": metadata.format("good", "Apache-2.0"),
            "good-1.dist-info/RECORD": record("good/a.py", "good/inner/b.py", "../../bin/good"),
            "single.py": LINES,
            "single-1.dist-info/METADATA": "Name: single\nLicense: see file\n",
            "single-1.dist-info/licenses/LICENSE": MIT,
            "single-1.dist-info/RECORD": record("single.py"),
            "bad/c.py": LINES,
            "bad-1.dist-info/METADATA": metadata.format("bad", "LicenseRef-Proprietary"),
            "bad-1.dist-info/RECORD": record("bad/c.py"),
            "nobody.py": LINES,
            "broken-1.dist-info/RECORD": b"\xff\xfe",
        },
    )
    found, skipped = documents("code", tmp_path)
    assert {one.uri.removeprefix(f"{tmp_path}/"): one.license for one in found} == {
        "good/a.py": "Apache-2.0",
        "single.py": "MIT",
    }
    assert skipped == {
        "license not allowed: GPL-3.0": 1,
        "license not allowed: no SPDX expression": 1,
        "license unknown": 1,
    }


def test_vendored_generated_and_minified_files_are_left_out_and_counted(tmp_path):
    write(
        tmp_path,
        {
            "node_modules/x/y.js": LINES,
            "src/third_party/z.c": LINES,
            "target/debug/t.rs": LINES,
            "pkg/build/__init__.py": "# A package of this name.\n",
            "tests/fixtures/a.py": LINES,
            "package-lock.json": "{}",
            "a_pb2.py": "# Generated by the protocol buffer compiler.  DO NOT EDIT!\n",
            "parser.c": "/* A Bison parser, made by GNU Bison 3.8.2.  */\n",
            "gen.go": "// Code generated by stringer; DO NOT EDIT.\n",
            "talk.py": "# How text is generated.\n",
            "long.js": "x" * 1200,
            "wide.js": ("abcdefg " * 20 + "\n") * 9,
            "signs.js": "{}();" * 20 + "\n",
            "long.md": "word " * 300 + "\n\nshort\n" * 20,
            "empty.py": " \n",
        },
    )
    found, skipped = documents("code", tmp_path, licenses=())
    assert [one.uri.rpartition("/")[2] for one in found] == ["long.md", "__init__.py", "talk.py"]
    assert skipped == {
        "vendored: folder node_modules": 1,
        "vendored: folder third_party": 1,
        "built: folder target": 1,
        "test data: folder fixtures": 1,
        "lock files": 1,
        "generated": 3,
        "minified: a line of more than 1000 characters": 1,
        "minified: lines of more than 100 characters on average": 1,
        "minified: less than 25% letters and digits": 1,
        BLANK: 1,
    }
    everything, skipped = documents("code", tmp_path, licenses=(), leave_out=())
    assert len(everything) == 13 and skipped == {BLANK: 1}  # JSON counts as data, whatever its name


def test_limits_for_minified_files_are_options(tmp_path):
    write(tmp_path, {"a.js": "x" * 60 + "\n" + "y\n" * 50, "b.js": "{}();\n" * 20, "c.js": "z = 1;\n" * 300})
    assert len(documents("code", tmp_path, licenses=(), longest_line=50, alphanumeric=0.0)[0]) == 2
    assert len(documents("code", tmp_path, licenses=(), mean_line=5.5, alphanumeric=0.0)[0]) == 1
    assert documents("code", tmp_path, licenses=(), max_file_kilobytes=2)[1]["more than 2 kB: data"] == 1


def test_encodings_are_read_and_bad_files_counted(tmp_path):
    write(tmp_path, {"latin.py": "# naïve\n".encode("latin-1"), "b.py": b"\0\1", "gone.py": LINES})
    pieces = code.find(str(tmp_path), {**code.OPTIONS, "licenses": ()})
    found, skipped = documents("code", tmp_path, licenses=())
    assert found[-1].text == "# naïve\n" and skipped == {
        "unreadable: NUL bytes: not a text": 1,
        "kept: read as cp1252, judging by its bytes": 1,
    }
    (tmp_path / "gone.py").unlink()
    skipped.clear()
    read = [one for piece in pieces for one in code.read(piece, {**code.OPTIONS, "licenses": ()}, skipped)]
    assert len(read) == 1 and skipped["unreadable: FileNotFoundError"] == 1


def test_links_are_followed_but_not_in_cycles(tmp_path):
    write(tmp_path, {"tree/a.py": LINES, "else/b.py": LINES})
    (tmp_path / "tree" / "linked").symlink_to(tmp_path / "else")
    (tmp_path / "tree" / "loop").symlink_to(tmp_path / "tree")
    (tmp_path / "tree" / "self.py").symlink_to(tmp_path / "tree" / "self.py")
    (tmp_path / "tree" / "again.py").symlink_to(tmp_path / "tree" / "a.py")
    found, skipped = documents("code", tmp_path / "tree", licenses=(), links="all")
    assert len(found) == 2 and not skipped


def test_a_new_licence_changes_the_version_of_its_files(tmp_path):
    write(tmp_path, {"a.py": LINES})
    before = code.find(str(tmp_path), code.OPTIONS)[0].version
    write(tmp_path, {"LICENSE": MIT})
    assert code.find(str(tmp_path), code.OPTIONS)[0].version != before


@pytest.mark.parametrize(
    "options, message",
    [
        ({"languages": ("pyton",)}, "languages: 'pyton': expected one of .*; did you mean python"),
        ({"licenses": ("MTI",)}, "licenses: 'MTI': expected one of .*; did you mean MIT"),
        ({"leave_out": ("tests",)}, "leave_out: 'tests': expected one of built"),
        ({"alphanumeric": 2}, r"alphanumeric = 2: must be in \[0, 1\]"),
        ({"longest_line": 0}, "longest_line, mean_line and max_file_kilobytes must be positive"),
    ],
)
def test_invalid_options_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        documents("code", tmp_path, **options)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        documents("code", tmp_path / "nowhere")


def test_a_folder_that_cannot_be_listed_is_counted(tmp_path, monkeypatch):
    write(tmp_path, {"LICENSE": MIT, "a.py": LINES, "closed/b.py": LINES})
    close_to_listing(monkeypatch, "closed")
    found, skipped = documents("code", tmp_path)
    assert [one.uri for one in found] == [f"{tmp_path}/a.py"]
    assert skipped == {"unreadable: folder: PermissionError": 1}
