"""The language of a source file, by its name, or by the first line of a script."""

from __future__ import annotations

import re

# language → (kind, suffixes and whole names). Names of languages are GitHub Linguist's, in lower case.
#   code: written to be run; prose: written to be read; data: mostly made by machines, so only on request.
LANGUAGES: dict[str, tuple[str, str]] = {
    "ada": ("code", ".adb .ads"),
    "agda": ("code", ".agda"),
    "assembly": ("code", ".asm .s"),
    "awk": ("code", ".awk"),
    "batchfile": ("code", ".bat .cmd"),
    "c": ("code", ".c .h"),
    "c#": ("code", ".cs .csx"),
    "c++": ("code", ".cc .cpp .cxx .c++ .hh .hpp .hxx .inl .ipp .tpp"),
    "clojure": ("code", ".clj .cljs .cljc"),
    "cmake": ("code", ".cmake CMakeLists.txt"),
    "common lisp": ("code", ".lisp .lsp .asd"),
    "coq": ("code", ".v"),
    "css": ("code", ".css .scss .sass .less"),
    "cuda": ("code", ".cu .cuh"),
    "cython": ("code", ".pyx .pxd .pxi"),
    "d": ("code", ".d"),
    "dart": ("code", ".dart"),
    "dockerfile": ("code", ".dockerfile Dockerfile Containerfile"),
    "elixir": ("code", ".ex .exs"),
    "elm": ("code", ".elm"),
    "emacs lisp": ("code", ".el"),
    "erlang": ("code", ".erl .hrl"),
    "f#": ("code", ".fs .fsi .fsx"),
    "fortran": ("code", ".f .for .f77 .f90 .f95 .f03 .f08"),
    "glsl": ("code", ".glsl .vert .frag .geom"),
    "go": ("code", ".go"),
    "gradle": ("code", ".gradle"),
    "graphql": ("code", ".graphql .gql"),
    "groovy": ("code", ".groovy Jenkinsfile"),
    "haskell": ("code", ".hs .lhs"),
    "hcl": ("code", ".tf .hcl"),
    "html": ("code", ".html .htm .xhtml"),
    "idris": ("code", ".idr"),
    "java": ("code", ".java"),
    "javascript": ("code", ".js .mjs .cjs .jsx"),
    "julia": ("code", ".jl"),
    "kotlin": ("code", ".kt .kts"),
    "lean": ("code", ".lean"),
    "lua": ("code", ".lua"),
    "makefile": ("code", ".mk .mak Makefile makefile GNUmakefile"),
    "matlab": ("code", ".m"),
    "meson": ("code", "meson.build meson_options.txt"),
    "nim": ("code", ".nim"),
    "nix": ("code", ".nix"),
    "objective-c": ("code", ""),
    "objective-c++": ("code", ".mm"),
    "ocaml": ("code", ".ml .mli"),
    "pascal": ("code", ".pas .pp"),
    "perl": ("code", ".pl .pm .t"),
    "php": ("code", ".php"),
    "powershell": ("code", ".ps1 .psm1 .psd1"),
    "prolog": ("code", ".pro .prolog"),
    "protocol buffer": ("code", ".proto"),
    "python": ("code", ".py .pyi .pyw SConstruct wscript"),
    "r": ("code", ".r"),
    "racket": ("code", ".rkt"),
    "ruby": ("code", ".rb .rake .gemspec Rakefile Gemfile"),
    "rust": ("code", ".rs"),
    "scala": ("code", ".scala .sbt .sc"),
    "scheme": ("code", ".scm .ss"),
    "shell": ("code", ".sh .bash .zsh .ksh .fish"),
    "smalltalk": ("code", ".st"),
    "solidity": ("code", ".sol"),
    "sql": ("code", ".sql"),
    "standard ml": ("code", ".sml .sig"),
    "starlark": ("code", ".bzl BUILD BUILD.bazel WORKSPACE"),
    "stata": ("code", ".do .ado"),
    "swift": ("code", ".swift"),
    "systemverilog": ("code", ".sv .svh"),
    "tcl": ("code", ".tcl"),
    "thrift": ("code", ".thrift"),
    "typescript": ("code", ".ts .tsx .mts .cts"),
    "verilog": ("code", ".vh .verilog"),
    "vhdl": ("code", ".vhd .vhdl"),
    "vim script": ("code", ".vim .vimrc"),
    "visual basic": ("code", ".vb .bas"),
    "vue": ("code", ".vue .svelte"),
    "zig": ("code", ".zig"),
    "asciidoc": ("prose", ".asciidoc .adoc"),
    "markdown": ("prose", ".md .markdown .mdx"),
    "org": ("prose", ".org"),
    "restructuredtext": ("prose", ".rst"),
    "tex": ("prose", ".tex .sty .cls"),
    "csv": ("data", ".csv .tsv"),
    "ini": ("data", ".ini .cfg"),
    "json": ("data", ".json .jsonc"),
    "jupyter notebook": ("data", ".ipynb"),
    "svg": ("data", ".svg"),
    "toml": ("data", ".toml"),
    "xml": ("data", ".xml .xsd .xsl .xslt"),
    "yaml": ("data", ".yaml .yml"),
}
_INTERPRETERS = {
    **{name: name for name in "python ruby perl php lua tcl julia awk groovy scala elixir".split()},
    **{name: "shell" for name in "sh bash zsh ksh dash fish".split()},
    **{"node": "javascript", "nodejs": "javascript", "deno": "typescript", "ts-node": "typescript"},
    **{"rscript": "r", "tclsh": "tcl", "wish": "tcl", "gawk": "awk", "pypy": "python", "escript": "erlang"},
    **{"runhaskell": "haskell", "runghc": "haskell", "swipl": "prolog", "pwsh": "powershell", "make": "makefile"},
}
# Suffixes that several languages share: the other languages, by what their files always contain.
_SHARED = {
    ".h": (("c++", re.compile(r"^\s*(?:class\s+\w+|namespace\b|template\s*<|using\s+\w|public:|private:)", re.M)),),
    ".m": (("objective-c", re.compile(r"^\s*(?:#import|@interface|@implementation|@protocol|@import)\b", re.M)),),
    ".pl": (("prolog", re.compile(r"^\s*:-|^\w+\(.*\)\s*:-", re.M)),),
    ".ts": (("xml", re.compile(r"\A\s*<\?xml|\A\s*<!DOCTYPE TS>")),),
    ".v": (("verilog", re.compile(r"^\s*(?:end)?module\b", re.M)),),
}
_SHEBANG = re.compile(rb"#![ \t]*(?:\S*/)?([^/\s]+)(?:[ \t]+(?:-\S+[ \t]+|\w+=\S+[ \t]+)*([^\s/]\S*))?")
_BY_NAME = {name: language for language, (_, names) in LANGUAGES.items() for name in names.split()}


def of_name(name: str) -> tuple[str, ...]:
    """The languages that a file of this name (without folders) may be in, the likeliest first; () if not source."""
    if name in _BY_NAME and not name.startswith("."):
        return (_BY_NAME[name],)
    suffix = _suffix(name)
    if suffix not in _BY_NAME:
        return ()
    return (_BY_NAME[suffix], *(language for language, _ in _SHARED.get(suffix, ())))


def of_text(name: str, text: str) -> str:
    """Decides the language of a file, where `of_name` gives several."""
    for language, mark in _SHARED.get(_suffix(name), ()):
        if mark.search(text):
            return language
    return of_name(name)[0]


def of_shebang(start: bytes) -> str:
    """The language by a script's first bytes ('#!/usr/bin/env python3'), or ''."""
    found = _SHEBANG.match(start)
    if not found:
        return ""
    program = found[2] if found[1] == b"env" and found[2] else found[1]
    name = program.decode("ascii", "replace").lower()
    return _INTERPRETERS.get(name) or _INTERPRETERS.get(name.rstrip("0123456789."), "")


def kind(language: str) -> str:
    """code | prose | data."""
    return LANGUAGES[language][0]


def _suffix(name: str) -> str:
    return name[name.rfind(".") :].lower() if "." in name[1:] else ""
