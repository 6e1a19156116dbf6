import pytest

from gptjax.corpus.formats.latex import to_text
from gptjax.corpus.formats.latex_project import flatten, is_document, with_macros_expanded, without_comments


def expanded(source):
    return with_macros_expanded(without_comments(source)).strip()


@pytest.mark.parametrize(
    "source, text",
    [
        ("a % comment\nb", "a \nb"),
        ("50\\% % yes", "50\\% "),
        ("a\n% alone\nb", "a\nb"),  # no empty line, which would separate paragraphs
        ("a\\\\% line break", "a\\\\"),
        ("\\begin{comment}x\\end{comment}y \\iffalse z \\fi w", "y  w"),
        ("\\begin{verbatim}\n% kept\n\\end{verbatim}\n% gone\nx", "\\begin{verbatim}\n% kept\n\\end{verbatim}\nx"),
    ],
)
def test_comments_are_removed(source, text):
    assert without_comments(source) == text


@pytest.mark.parametrize(
    "source, text",
    [
        ("\\newcommand{\\R}{\\mathbb{R}}$x \\in \\R$", "$x \\in \\mathbb{R}$"),
        ("\\newcommand\\norm[1]{\\|#1\\|}$\\norm{x}$", "$\\|x\\|$"),
        ("\\newcommand{\\f}[2][n]{#1/#2}\\f{a} \\f[b]{c}", "n/a b/c"),
        ("\\def\\a#1#2{(#1,#2)}\\a{x}y", "(x,y)"),
        ("\\renewcommand*{\\a}{b}\\a{}c \\provide", "bc \\provide"),
        ("\\DeclareMathOperator{\\im}{im}$\\im f$", "$\\operatorname{im} f$"),
        ("\\DeclareMathOperator*{\\argmax}{arg\\,max}\\argmax", "\\operatorname*{arg\\,max}"),
        ("\\newcommand{\\a}{\\b}\\newcommand{\\b}{c}\\a", "c"),
        ("\\newcommand{\\la}{\\langle}\\la x, \\la", "\\langle x, \\langle"),
        ("\\newcommand{\\x}{1}\\newcommand{\\x}{2}\\x", "2"),
        ("\\newcommand{\\x}{\\ifmmode a\\else b\\fi}\\x", "\\x"),  # a macro that computes
        ("\\newcommand{\\section}{x}\\section{a}", "\\section{a}"),
        ("\\newcommand{\\x}[1]{#1}\\x", "\\x"),  # without its argument
        ("\\newcommand{\\broken", "\\newcommand{\\broken"),
    ],
)
def test_macros_are_expanded(source, text):
    assert expanded(source) == text


@pytest.mark.parametrize(
    "source",
    [
        "\\newcommand{\\a}{\\a\\a}\\a",
        "".join(f"\\newcommand{{\\x{c}}}{{\\x{d}\\x{d}\\x{d}}}" for c, d in zip("abcdefghijklmno", "bcdefghijklmnop"))
        + "\\xa",
        "\\def\\a#1{\\a{#1#1}}\\a{b}",
    ],
)
def test_the_expansion_of_macros_is_limited(source):
    assert len(expanded(source)) < 1_000_000


@pytest.mark.parametrize(
    "source, text",
    [
        ("\\section{One}text\n\n\\subsection*{Two}more", "One\n\ntext\n\nTwo\n\nmore"),
        ("\\emph{a} {\\bf b} \\textbf{c}~d", "a b c d"),
        ("$x_1$ and \\(y\\) and \\[z\\] and $$w$$", "$x_1$ and $y$ and\n$$ z $$\nand\n$$ w $$"),
        ("a\n\\begin{equation}\\label{e} x \\end{equation}\nb", "a\n\n\\begin{equation}x \\end{equation}\n\nb"),
        ("costs \\$5 or $6\n\nnext $7$", "costs $5 or $6\n\nnext $7$"),
        ("text~\\cite{a,b}, and \\citep[see][p.~3]{c}.", "text, and."),
        ("\\section{A}\\label{a}\\section{B}\\subsection{C}\\label{c} See \\ref{a} and~\\ref{c}.",
         "A\n\nB\n\nC\n\nSee 1 and 2.1."),
        ("\\begin{equation}\\label{e}x\\end{equation} By \\eqref{e}, \\cref{e,f}.",
         "\\begin{equation}x\\end{equation}\nBy (1), eq. (1)."),
        ("\\begin{theorem}[Gauss]\\label{t} All. \\end{theorem} By \\ref{t}", "Theorem (Gauss). All.\n\nBy 1"),
        ("\\begin{figure}\\includegraphics[w=1]{a}\\caption[s]{Long \\emph{one}.}\\end{figure}", "Long one."),
        ("\\begin{table}\\caption{C}\\begin{tabular}{ll}a & b\\\\\\end{tabular}\\end{table}x", "C\n\nx"),
        ("\\begin{tikzpicture}\\draw (0,0);\\end{tikzpicture}x", "x"),
        ("x \\begin{thebibliography}{9}\\bibitem{a} A\\end{thebibliography}", "x"),
        ("\\begin{itemize}\n\\item one\n\\item[b] two\n\\end{itemize}", "- one\n- b two"),
        ("note\\footnote{See \\emph{there}.} it", "note (See there.) it"),
        ("\\href{http://x.org}{here} \\url{http://y.org}", "here http://y.org"),
        ("``quoted'' -- yes --- no \\ldots{} \\& \\%", "“quoted” – yes — no … & %"),
        ("Erd\\H{o}s, G\\\"odel, \\'{e}l\\`eve, \\c{c}a, na\\\"{\\i}ve, \\o re",
         "Erdős, Gödel, élève, ça, naïve, øre"),
        ("\\verb|a_{b|} and \\begin{lstlisting}[l=C]\nint $x;\n\\end{lstlisting}", "a_{b and\n\nint $x;"),
        ("\\textcolor{red}{kept} \\unknown{kept} \\vspace{1cm}\\vskip 2pt plus", "kept kept plus"),
        ("\\begin{quote}a\\end{quote}b", "a\n\nb"),
        ("unclosed { and \\begin{equation} x", "unclosed and \n\nx"),
        ("", ""),
    ],
)  # fmt: skip
def test_latex_becomes_text(source, text):
    assert to_text(source).split() == text.split()
    assert to_text(source).count("\n\n") == text.count("\n\n") or "equation" in source


BIBLIOGRAPHY = (
    "\\begin{thebibliography}{9}\\bibitem[Smith et~al.(2010)Smith, Jones, and Li]{smith}S.\n"
    "\\bibitem[{{Wu} \\& {Li}(2012)}]{wu}W.\\bibitem{plain}P.\\end{thebibliography}"
)


@pytest.mark.parametrize(
    "source, text",
    [
        ("As shown by \\citet{smith}, the effect is real.", "As shown by Smith et al. (2010), the effect is real."),
        ("\\citet{smith,wu} agree.", "Smith et al. (2010) and Wu & Li (2012) agree."),
        ("\\citeauthor{wu}'s result of \\citeyear{wu}", "Wu & Li's result of 2012"),
        ("It is known \\citep[see][p.~3]{smith}. So \\cite{plain}.", "It is known. So."),
        ("It is known (\\cite{smith}; \\cite{wu}), or (see e.g.\\ \\cite{wu}).", "It is known, or (see e.g. [2])."),
        ("the method of~\\cite{plain}, as in \\cite{smith,plain}", "the method of [3], as in [1, 3]"),
        ("\\textcite{chen2019deep} prove it; \\citet{x:y} too.", "Chen (2019) prove it; [5] too."),
        ("See Section~\\ref{nowhere}. (see \\ref{nowhere})", "See Section."),
        ("a range of \\SIrange{1}{2}{\\kg} and \\SI{9.81}{\\metre\\per\\second\\squared}, \\qty{5}{\\percent}",
         "a range of 1 to 2 kg and 9.81 m/s², 5 %"),
        ("\\num{1e5} at \\SI{300}{\\kelvin}, \\numlist{1;2;3}, \\si{\\micro\\metre}",
         "1 × 10⁵ at 300 K, 1, 2 and 3, µm"),
        ("call \\texttt{main()} or f() and a[] of $f()$, $g(\\,)[]$",
         "call main() or f() and a[] of $f()$, $g(\\,)[]$"),
        ("\\verb|x%y| stays, \\lstinline{int a[];} and \\mintinline{c}|f( )| too % gone",
         "x%y stays, int a[]; and f( ) too"),
        ("\\url{http://x.org/a%20b} stays % gone", "http://x.org/a%20b stays"),
        ("\\newcommand{\\us}{Ours\\xspace}\\us, \\us is \\us{} (\\us)", "Ours, Ours is Ours (Ours)"),
        ("na\\\"\\i ve, na\\\"{\\i}ve, \\^\\i{}le, G\\\"odel", "naïve, naïve, île, Gödel"),
    ],
)  # fmt: skip
def test_sentences_have_no_holes_and_nothing_is_lost(source, text):
    assert to_text(expanded(f"{source}\n\n{BIBLIOGRAPHY}")) == text


def test_listings_are_verbatim():
    code = "int main() {\n    int a[] = {};\n\n\n    f(  ); // ``x'' -- y~z\n}"
    for begin, end in (
        ("\\begin{verbatim}", "\\end{verbatim}"),
        ("\\begin{lstlisting}[language=C]", "\\end{lstlisting}"),
        ("\\begin{minted}[linenos]{c}", "\\end{minted}"),
        ("\\begin{Verbatim}[fontsize=\\small]", "\\end{Verbatim}"),
    ):
        assert to_text(expanded(f"Before.\n{begin}\n{code}\n{end}\nAfter.")) == f"Before.\n\n{code}\n\nAfter."


def test_algorithms_keep_their_lines_and_indentation():
    source = (
        "\\begin{algorithmic}[1]\n\\Require $n$\n\\For{$i = 1, 2$}\n\\State $x()$\n\\If{a} \\State b \\Else \\State c"
        "\\EndIf\n\\EndFor\n\\State \\Return d\n\\end{algorithmic}"
    )
    assert to_text(source) == (
        "Require: $n$\nfor $i = 1, 2$ do\n  $x()$\n  if a then\n    b\n  else\n    c\n  end if\nend for\nreturn d"
    )
    assert to_text(source.replace("State", "STATE").replace("For", "FOR")) == to_text(source)


def test_a_document_begins_with_its_title():
    source = (
        "\\documentclass{article}\\title{On \\emph{It}\\thanks{Money}}\\newtheorem{thm}{Satz}\\begin{document}\n"
        "\\maketitle\\begin{abstract}Short.\\end{abstract}\\begin{thm}X.\\end{thm}\\end{document} after"
    )
    assert to_text(source) == "On It\n\nAbstract\n\nShort.\n\nSatz. X."


FILES = {
    "main.tex": "\\documentclass{a}\\usepackage{mine,others}\\begin{document}\\input{parts/one}\\include{two}",
    "parts/one.tex": "ONE \\input three \\input{../../secret} \\input{/etc/passwd}",
    "parts/three.tex": "THREE \\input{parts/one}",  # a cycle
    "two.tex": "TWO\\endinput NOT",
    "mine.sty": "\\newcommand{\\x}{y}",
    "other.tex": "OTHER",
}


def test_only_the_projects_own_files_are_included():
    flat = flatten("main.tex", FILES, FILES.__getitem__, 10**6)
    assert (
        "ONE" in flat.source and "THREE" in flat.source and "TWO" in flat.source and "\\newcommand{\\x}" in flat.source
    )
    assert not any(word in flat.source for word in ("NOT", "OTHER", "secret", "passwd"))
    assert flat.files == ["main.tex", "mine.sty", "parts/one.tex", "parts/three.tex", "two.tex"]


def test_the_size_of_included_files_is_limited():
    files = {f"{c}.tex": f"\\input{{{d}}}\\input{{{d}}}" * 50 for c, d in zip("abcdefg", "bcdefgh")} | {
        "h.tex": "x" * 100
    }
    assert len(flatten("a.tex", files, files.__getitem__, 100_000).source) < 2_000_000


def test_a_whole_document_becomes_text():
    assert is_document("\\documentclass[a4]{article}\n\\begin{document}x")
    assert not is_document("\\documentclass{x}") and not is_document("\\begin{document}x")


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "}",
        "$",
        "\\(",
        "\\[",
        "\\begin{equation}",
        "\\label{",
        "\\cite",
        "\\'",
        "[",
        "\\caption[",
        "$$x",
        "\\begin{verbatim}",
    ],
)
def test_time_is_linear_in_length(unit):
    """A time quadratic in the length would be a minute."""
    assert isinstance(to_text(expanded(unit * (150_000 // len(unit)))), str)


@pytest.mark.parametrize(
    "head, printed",
    [
        (r"\documentclass{article}", "Lemma 2, Theorem 3"),
        (r"\documentclass[runningheads]{llncs}", "Lemma 1, Theorem 2"),
        (r"\documentclass[envcountsame]{llncs}", "Lemma 2, Theorem 3"),
        (r"\documentclass[sigconf]{acmart}", "Lemma 1.2, Theorem 1.3"),
        (r"\documentclass{article} \spnewtheorem{lemma}{Lemma}{\bfseries}{}", "Lemma 1, Theorem 2"),
    ],
)
def test_theorems_are_counted_as_their_class_counts_them(head, printed):
    body = (
        r"\section{A} \begin{theorem} X. \end{theorem} \begin{lemma}\label{l} Y. \end{lemma} "
        r"\begin{theorem}\label{t} Z. \end{theorem} Lemma \ref{l}, Theorem \ref{t}"
    )
    assert to_text(rf"{head}\begin{{document}}{body}\end{{document}}").endswith(printed)


def test_the_options_of_packages_are_known_when_a_project_is_read():
    source = (
        r"\documentclass{article}\usepackage[capitalise]{cleveref}\begin{document}"
        r"\section{A}\label{a} As \cref{a} says.\end{document}"
    )
    flat = flatten("main.tex", {"main.tex"}, {"main.tex": source}.__getitem__, 10**6)
    assert to_text(flat.source).endswith("As Section 1 says.")


@pytest.mark.parametrize("head", [r"\documentclass{aastex63}", r"\documentclass{article}\usepackage{changes}"])
def test_what_an_author_replaced_and_deleted_is_not_printed(head):
    old_and_new = "{old}{\\emph{new} text}" if "aastex" in head else "{\\emph{new} text}{old}"
    text = to_text(
        rf"{head}\begin{{document}}The \replaced{old_and_new} is\deleted{{ not}}\added{{ so}}.\end{{document}}"
    )
    assert text == "The new text is so."


@pytest.mark.parametrize("block", ["\\If{a}{", "\\If{a}\n\\State x\n"], ids=["algorithm2e", "algorithmic"])
def test_blocks_of_an_algorithm_that_are_nested_without_end_are_read_and_do_not_grow(block):
    steps = f"{block * 3000}x\\;{'}' * 3000 * block.endswith('{')}"
    name, package = ("algorithm", "algorithm2e") if block.endswith("{") else ("algorithmic", "algpseudocode")
    head = f"\\documentclass{{article}}\\usepackage{{{package}}}\\begin{{document}}"
    text = to_text(f"{head}\\begin{{{name}}}{steps}\\end{{{name}}}\nAfter it.\\end{{document}}")
    assert text.count("if a") >= 60 and text.rstrip().endswith("After it.") and len(text) < 20 * len(steps)
