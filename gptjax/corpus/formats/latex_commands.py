"""The names of LaTeX's environments and commands, by what becomes of them in text."""

from __future__ import annotations

MATHS = frozenset(
    name + star
    for name in "math displaymath equation eqnarray align alignat gather multline flalign dmath subequations "
    "IEEEeqnarray mathpar prooftree".split()
    for star in ("", "*")
)
DROPPED_ENVIRONMENTS = frozenset(
    "tikzpicture pspicture picture pgfpicture asy tikzcd thebibliography tabular tabular* tabularx tabulary "
    "longtable array deluxetable deluxetable* filecontents filecontents* comment CCSXML keywords IEEEkeywords "
    "thenomenclature xy diagram forest prooftree*".split()
)
THEOREMS = (
    "theorem lemma proposition corollary definition remark example proof conjecture claim exercise question notation "
    "assumption hypothesis fact observation problem solution axiom".split()
)
HEADINGS = frozenset("part chapter section subsection subsubsection paragraph subparagraph addchap addsec".split())
# What ends the group after a command, and what begins the group.
WRAPPED = {
    **dict.fromkeys(HEADINGS, "\n\n"),
    "caption": "\n\n",
    "captionof": "\n\n",
    "footnote": ")",
    "title": "\n\n",
    "abstract": "\n\n",
    "enquote": "”",
}
BEGINS = {
    **dict.fromkeys([*HEADINGS, "caption", "title"], "\n\n"),
    "abstract": "\n\nAbstract\n\n",
    "footnote": " (",
    "enquote": "“",
}
# Commands that are removed with all brackets and braces after them.
DROPPED = frozenset(
    "label nocite includegraphics includepdf includesvg bibliography "
    "bibliographystyle printbibliography addbibresource vspace hspace setlength addtolength setcounter "
    "addtocounter stepcounter refstepcounter usepackage documentclass documentstyle graphicspath pagestyle "
    "thispagestyle pagenumbering thanks author address affiliation email date institute institution affil "
    "orcid keywords pacs subjclass markboth markright fancyhead fancyfoot fancyhf lhead rhead chead lfoot "
    "rfoot cfoot hypersetup geometry newtheorem theoremstyle newcommand renewcommand providecommand "
    "newenvironment renewenvironment newcounter newlength newcolumntype definecolor color pagecolor index "
    "glossary rule phantom hphantom vphantom hyphenation linespread fontsize selectlanguage tikzset "
    "pgfplotsset lstset captionsetup titleformat titlespacing input include bibitem footnotemark marginpar "
    "todo defcitealias externaldocument crefname Crefname setkeys PassOptionsToPackage RequirePackage "
    "DeclareMathOperator DeclareRobustCommand addcontentsline "
    "tableofcontents listoffigures listoftables newpage clearpage acmConference acmYear acmDOI ccsdesc "
    "received revised accepted published altaffiltext altaffilmark shorttitle shortauthors slugcomment journal "
    "inst icmlauthor icmlaffiliation icmltitlerunning titlerunning authorrunning tocauthor toctitle "
    "runninghead resizebox scalebox rotatebox fontseries fontshape fontfamily usefont newgeometry "
    "restoregeometry multicolumn multirow cline cmidrule arrayrulecolor rowcolor cellcolor noalign "
    "footnotetext deleted explain".split()
)
# Commands whose first group is removed and whose second stays.
SECOND_STAYS = frozenset(
    "href hypertarget hyperlink textcolor colorbox fcolorbox parbox raisebox makebox adjustbox texorpdfstring "
    "foreignlanguage".split()
)
# Commands with a length that has no braces: \vskip 2pt, \parindent=0pt.
LENGTHS = frozenset(
    "vskip hskip kern vglue hglue parskip parindent baselineskip topskip textwidth textheight oddsidemargin".split()
)
ALGORITHMS = ("algorithmic", "algpseudocode", "algorithm2e", "pseudocode")
# Commands of algorithms, in the capitals of either package → what they print, and the change of indentation.
STEPS = {
    **{"state": ("", 0), "statex": ("", 0), "require": ("Require:", 0), "ensure": ("Ensure:", 0)},
    **{"return": ("return", 0)},
    **{"for": ("for", 1), "forall": ("for all", 1), "while": ("while", 1), "if": ("if", 1), "loop": ("loop", 1)},
    **{"elsif": ("else if", 0), "elseif": ("else if", 0), "else": ("else", 0), "repeat": ("repeat", 1)},
    **{"until": ("until", -1), "endfor": ("end for", -1), "endwhile": ("end while", -1), "endif": ("end if", -1)},
    **{"endloop": ("end loop", -1), "function": ("function", 1), "procedure": ("procedure", 1)},
    **{"endfunction": ("end function", -1), "endprocedure": ("end procedure", -1), "print": ("print", 0)},
    **{"blockbegin": ("", 1), "blockend": ("", -1)},  # latex_algorithm2e.py
}  # fmt: skip
AFTER_STEP = {"for": " do", "forall": " do", "while": " do", "if": " then", "elsif": " then", "elseif": " then"}
