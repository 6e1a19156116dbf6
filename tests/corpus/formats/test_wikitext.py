import pytest

from gptjax.corpus.formats.wikitext import tidy, to_text


@pytest.mark.parametrize(
    "markup, text",
    [
        ("'''Bold''' and ''slanted''", "Bold and slanted"),
        ("A [[link]], a [[Page (x)|label]], [[#Part]], [[:Category:X]]", "A link, a label, Part, Category:X"),
        ("x [[File:a.jpg|thumb|A [[nested]] caption]] y", "x y"),
        ("x [[Category:Things]][[de:Ding]][[Datei:a.png]]", "x"),
        ("x {{cite web|title={{lang|fr|y}}|url=z}} y", "x y"),
        ("{{convert|5|km|mi}}, {{convert|5|to|10|km}}", "5 km, 5 to 10 km"),
        ("{{lang|fr|mot}} {{lang-de|Wort}} {{nowrap|a b}} 1{{ndash}}2 {{as of|2010}}", "mot Wort a b 1–2 As of 2010"),
        ("{{frac|1|2}} {{frac|3|1|2}} {{circa|1900}} {{formatnum:1234}}", "1/2 3 1/2 c. 1900 1234"),
        ("born {{birth date|1905|2|2|df=yes}}", "born 1905-2-2"),
        ("Chen ({{zh|x}}; born 1942), (), f() and ({{x}}, {{y}})", "Chen (born 1942), f() and"),
        ("before\n{| class=x\n|-\n| cell {{t|\n}}\n{| inner\n|}\n|}\nafter", "before\n\nafter"),
        ("a<ref>note [[x]]</ref>b<ref name=y />c<ref name=z/>d<!-- e -->f", "abcdf"),
        ("<math>x^2 < 3</math> and <code>a[[0]]</code>", "$x^2 < 3$ and a[[0]]"),
        ("<nowiki>[[kept]]</nowiki> H<sub>2</sub>O<br>next", "[[kept]] H2O\nnext"),
        ("[http://x.org A label], [http://x.org], http://y.org", "A label, http://y.org"),
        ("* one\n** two\n# three\n:indented\n;term", "- one\n- two\n- three\nindented\nterm"),
        ("Lead.\n== First ==\nText.\n=== Empty ===\n== Second ==\n=== Sub ===\nMore.",
         "Lead.\n\nFirst\n\nText.\n\nSecond\n\nSub\n\nMore."),
        ("Lead.\n== References ==\n* x\n=== Sub ===\ny\n== After ==\nz", "Lead.\n\nAfter\n\nz"),
        ("__NOTOC__a &amp; b&nbsp;c &lt;d&gt;", "a & b c <d>"),
        ("unclosed {{template and [[link", "unclosed template and link"),
        ("stray }} and ]] and |}", "stray and and |}"),
        ("[[a {{b]] c}} d", "a b c d"),
        ("<ref>never closed, and text", "never closed, and text"),
        ("", ""),
    ],
)  # fmt: skip
def test_markup_becomes_text(markup, text):
    assert to_text(markup) == text


@pytest.mark.parametrize(
    "markup, text",
    [
        ("He wrote:\n{{Blockquote|text=All is well.|author=X}}\nAnd left.", "He wrote:\nAll is well.\nAnd left."),
        ("It cost {{US$|5 million}} and {{€|3}}.", "It cost US$5 million and €3."),
        ("{{ill|Jean Untel|fr}} met {{ill|Max Muster|de|Max Muster (Maler)}}.", "Jean Untel met Max Muster."),
        ("She is {{height|ft=5|in=11}} tall.", "She is 5 ft 11 in tall."),
        ("In use {{as of|2014|3|lc=y}}. {{As of|2015}}, not.", "In use as of March 2014. As of 2015, not."),
        ("Né le {{date|12|mars|2014}} à Paris.", "Né le 12 mars 2014 à Paris."),
        ("Long de {{unité|5|km}} au {{s|XIX}} et au {{XXe siècle}}.", "Long de 5 km au XIXe siècle et au XXe siècle."),
        ("The {{whatever this is|first|x=y|second}} of them.", "The first of them."),
        ("{{unknown at the beginning|Mills}} was there.", "Mills was there."),
        ("aboard {{USS|Enterprise|CV-6}} at sea", "aboard USS Enterprise at sea"),
        ("True.{{citation needed|date=May 2010}} Said {{who|date=x}} so{{sfn|Smith|2001|p=3}}{{refn|group=n|A note}}.",
         "True. Said so."),
        ("{{Infobox person|name=X}}\n{{Use dmy dates|date=May 2010}}'''X''' is\n{{unknown box|some text}}\nold.",
         "X is\n\nold."),
        ("{{Taxobox\n| name = Y\n}}'''Y''' is.", "Y is."),
    ],
)  # fmt: skip
def test_templates_inside_sentences_leave_no_hole(markup, text):
    assert to_text(markup) == text


def test_the_caller_chooses_which_sections_are_left_out():
    markup = "a\n== References ==\nb\n== Plot summary ==\nc"
    assert to_text(markup, ()) == "a\n\nReferences\n\nb\n\nPlot summary\n\nc"
    assert to_text(markup, ("plot_summary",)) == "a\n\nReferences\n\nb"


def test_punctuation_left_by_templates_is_removed():
    assert tidy("A (, ; b) , c  d\n\n\n\n- \n,\ne") == "A (b), c d\n\ne"


@pytest.mark.parametrize(
    "unit",
    [
        "{{",
        "[[",
        "{|\n",
        "}}",
        "<ref>",
        "<!--",
        "<ref",
        "[http://x ",
        "=",
        "''",
        "(,",
        ",",
        "{{{{[[",
        "|}\n",
        "{{a|",
        "&amp",
    ],
)
def test_time_is_linear_in_length(unit):
    """A time quadratic in the length would be minutes."""
    assert isinstance(to_text(unit * (300_000 // len(unit))), str)
