"""Prints the sentences of tests/corpus/formats/printed and compares the pages with what the tests expect.

  python experiments/corpus/printed.py [--keep=FOLDER] [--only=latex_software]
  python experiments/corpus/printed.py --jats=JATSPreviewStylesheets/xslt/main/jats-html.xsl

LaTeX needs pdflatex and pdftotext (Debian: texlive-latex-extra, texlive-science, texlive-plain-generic, lmodern,
poppler-utils). JATS needs xsltproc, chromium, pdftotext and the NCBI's stylesheets (github.com/ncbi). Every file of
sentences becomes one document with a sentence on each page. A difference between print and expected text has a rule
(rule_of below), or it is an error of the reader or of the expected text.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import unicodedata
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = ROOT / "tests" / "corpus" / "formats" / "printed"
PREAMBLE = r"""\documentclass{article}
\usepackage[paperwidth=42cm,paperheight=16cm,margin=2cm]{geometry}
\usepackage[T1]{fontenc}
\usepackage{lmodern,textcomp,amsmath,amssymb,amsthm,xspace,fancyhdr,ulem,xcolor,booktabs}
\usepackage{siunitx,csquotes,listings,subcaption}
\lstset{columns=fullflexible,keepspaces}
\usepackage[shortlabels]{enumitem}
\usepackage[draft]{minted}
\usepackage[demo]{graphicx}
\usepackage{natbib,hyperref}
\setcitestyle{%s}
\hyphenpenalty=10000 \exhyphenpenalty=10000 \normalem
\providecommand{\euro}{\texteuro}
\providecommand{\tightlist}{}
\providecommand{\acknowledgments}{}
\pagestyle{fancy} \fancyhf{} \renewcommand{\headrulewidth}{0pt}
\newcommand{\sentence}{0} \fancyhead[L]{SENTENCE \sentence}
"""
CLEVEREF = "\\usepackage{cleveref}\n"
ALGORITHMS = "\\usepackage{algorithm,algpseudocode}\n"


def read_sentences(file: Path) -> tuple[str, list[tuple[str, str]]]:
    """(what stands before every sentence, [(source, expected text)]) of a file of sentences."""
    context, *records = file.read_text(encoding="utf-8").split("\n--\n")
    pairs = (re.split(r"\n=>\|? ", record, maxsplit=1) for record in records)
    return context, [(source, expected.strip("\n")) for source, expected in pairs]


def typeset(file: Path, folder: Path) -> Path:
    """The PDF of all sentences of a file, each on pages of its own."""
    context, sentences = read_sentences(file)
    preamble = PREAMBLE % ("numbers,square" if file.stem.endswith("numbered") else "authoryear,round")
    preamble += "" if "{algorithm2e}" in context else ALGORITHMS
    preamble += "" if "{cleveref}" in context else CLEVEREF
    pages = [
        f"\\clearpage\\gdef\\sentence{{{number}}}\\begingroup\n{source}\n\n\\endgroup\n"
        for number, (source, _) in enumerate(sentences, 1)
    ]
    document = folder / f"{file.stem}.tex"
    document.write_text(f"{preamble}{context}\n{''.join(pages)}\\end{{document}}\n", encoding="utf-8")
    for _ in range(3):  # references need the second run, and the places of what they moved the third
        subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-no-shell-escape", document.name],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            check=False,
        )
    return document.with_suffix(".pdf")


PAGE_STYLE = "<style>h2{break-before:page}table{display:none}</style></head>"


def rendered(file: Path, folder: Path, stylesheet: Path) -> Path:
    """The PDF of all sentences of a file of JATS, as the stylesheets and a browser print them."""
    context, sentences = read_sentences(file)
    sections = "".join(
        f"<sec><title>SENTENCE {number}</title>{source}</sec>" for number, (source, _) in enumerate(sentences, 1)
    )
    article, page = folder / f"{file.stem}.xml", folder / f"{file.stem}.html"
    article.write_text(f"<article {context.strip()}><front/><body>{sections}</body></article>", encoding="utf-8")
    html = subprocess.run(["xsltproc", stylesheet, article], check=True, capture_output=True, text=True).stdout
    page.write_text(html.partition("This display is generated")[0].replace("</head>", PAGE_STYLE), encoding="utf-8")
    pdf = page.with_suffix(".pdf")
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    subprocess.run([*browser, f"--print-to-pdf={pdf}", page], check=True, capture_output=True)
    return pdf


def printed_sentences(pdf: Path) -> dict[int, str]:
    """Number of a sentence → the text of its pages."""
    text = subprocess.run(["pdftotext", "-layout", pdf, "-"], check=True, capture_output=True, text=True).stdout
    printed: dict[int, str] = {}
    for page in text.split("\f"):
        if found := re.match(r"\s*SENTENCE (\d+)\n", page):
            printed[int(found[1])] = f"{printed.get(int(found[1]), '')}{page[found.end() :].rstrip()}\n".lstrip("\n")
    return printed


_NAMES = r"[A-Z][\w-]+(?: et al\.| (?:and|&) [A-Z][\w-]+)? "
CITATION = re.compile(
    rf" ?\([^()]*\b\d{{4}}\b[^()]*\)| ?\(\d+(?:; \d+)*\)|;? ?\b{_NAMES}\(\d{{4}}\)| ?\[\d+(?:, \d+)*\]"
)
SIGN = re.compile(r"TM|[°∘o]")  # raised letters and their signs
# What a print has and the expected text leaves out: its name, when the source has it, and what it looks like in print.
LEFT_OUT = (
    ("page", r"\\pageref", r".*\bpage \d+.*"),
    (
        "number",
        r"\\(begin|section|chapter)\b|<label>",
        r"((Figure|Table|Algorithm|Listing) )?([A-Z]\.)?\d+(\.\d+)*:?|\(\d+\)",
    ),
    ("table", r"\{tabular|<table", r".*"),
    ("graphic", r"<graphic", r"a\.png"),
)
MATHS = re.compile(
    r"\$\$.*?\$\$|\$(?:[^${]|\{(?:[^{}]|\{[^{}]*(?:\{[^{}]*\})*[^{}]*\})*\})*\$|\\begin\{.*\\end\{[^}]*\}", re.DOTALL
)


def plain(text: str) -> str:
    """One kind of quotation marks, dots, bullets and spaces, and indices as ordinary figures."""
    text = unicodedata.normalize("NFKC", text.replace("^", "")).translate(str.maketrans("’‘`“”•∗", "'''\"\"-*"))
    return " ".join(re.sub(r" ?\. \. \.", "...", text).replace("LATEX", "LaTeX").split())


def without_footnotes(printed: str, expected: str) -> tuple[str, str, bool]:
    """(print, expected text) without the footnotes that are at the foot of the one and in brackets in the other."""
    body, _, foot = printed.rstrip().partition("\n\n\n\n")
    note = re.match(r"\s*(\d+) (.*)", foot, re.DOTALL)
    text = f"({plain(note[2])})" if note else ""
    if not note or text not in expected:
        return printed, expected, False
    return re.sub(rf"(?<=\S) ?{note[1]}(?:(?=\s\w)| ?(?=[.]|$))", "", body), expected.replace(f" {text}", ""), True


def differences(source: str, expected: str, printed: str) -> tuple[list[str], list[str]]:
    """(the rules by which print and expected text differ, the differences that no rule explains)."""
    rules: set[str] = set()
    expected = MATHS.sub(lambda found: re.sub(r"\s", "", f"\0{found[0]}\0"), expected)
    printed, expected, noted = without_footnotes(printed, plain(expected))
    rules |= {"footnote"} if noted else set()
    ours, theirs = expected.split(), plain(printed).split()
    unexplained = []
    for kind, a, b, c, d in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if kind != "equal":
            our, their = " ".join(ours[a:b]), " ".join(theirs[c:d])
            rule = rule_of(source, our, their)
            rules |= {rule} if rule else set()
            unexplained += [] if rule else [f"expected {our!r}, printed {their!r}"]
    return sorted(rules), unexplained


def letters(text: str) -> str:
    """A text without the figures and punctuation of which numbers of references are made, but with its powers."""
    return re.sub(r"[\[\](),;–\s]|(?<![×\d])\d+", "", text)


def rule_of(source: str, our: str, their: str) -> str:
    """The rule that explains a difference; '' if there is none."""
    if "\0" in our:
        words = [re.escape(part.replace(" ", "")) for part in re.split("\0.*?\0", our)]
        return "maths" if re.fullmatch(".+".join(words), their.replace(" ", "")) else ""
    if our.replace("-", "").strip() == their and re.search(r"\\item\[|<list-item", source):
        return "dash"
    if our.replace("--", "–") == their and "\\texttt" in source:
        return "typewriter"
    if CITATION.sub("", their).strip() == our and "cite" in source:
        return "citation"
    if 'ref-type="bibr"' in source and letters(CITATION.sub("", their)) == letters(our):
        return "citation"
    if "<sup>" in source and SIGN.sub("", our) == SIGN.sub("", their):
        return "sign"
    if our.replace(" ", "") == their.replace(" ", "") and "</bold>" in source:
        return "heading"
    for begin in range(len(our) + 1):  # the print with one passage more
        if their.startswith(our[:begin].rstrip()) and their.endswith(our[begin:].lstrip()):
            passage = their[len(our[:begin].rstrip()) : len(their) - len(our[begin:].lstrip())].strip()
            for name, where, look in LEFT_OUT:
                if re.search(where, source) and re.fullmatch(look, passage):
                    return name
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="a folder for the documents and their PDFs")
    parser.add_argument(
        "--jats", type=Path, metavar="STYLESHEET", help="print the sentences of JATS with it, not LaTeX"
    )
    parser.add_argument("--only", default="*", help="the name of one file of sentences")
    arguments = parser.parse_args()
    print("| file | sentences | word for word | by a rule | differ |")
    print("|---|---:|---:|---:|---:|")
    used: Counter[str] = Counter()
    unexplained = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(SENTENCES.glob(f"{arguments.only}.txt")):
            if file.stem.startswith("jats") != (arguments.jats is not None):
                continue
            pdf = rendered(file, folder, arguments.jats) if arguments.jats else typeset(file, folder)
            printed = printed_sentences(pdf)
            counts: Counter[str] = Counter()
            for number, (source, expected) in enumerate(read_sentences(file)[1], 1):
                rules, rest = differences(source, expected, printed.get(number, ""))
                counts["differ" if rest else "rule" if rules else "same"] += 1
                used.update(rules)
                unexplained += [f"{file.stem} {number}: {one}" for one in rest]
            print(f"| {file.stem} | {counts.total()} | {counts['same']} | {counts['rule']} | {counts['differ']} |")
    print("\nRules that were needed: " + ", ".join(f"{name} {count}" for name, count in used.most_common()))
    print("\n".join(["", *unexplained]))


if __name__ == "__main__":
    main()
