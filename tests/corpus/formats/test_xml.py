import pytest

from gptjax.corpus.formats.xml import BrokenXML, parse, text_of

BOMB = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><a>&y;</a>'


def test_namespaces_are_dropped_and_html_entities_are_known():
    root = parse(
        b'<!DOCTYPE a PUBLIC "x" "http://nowhere/x.dtd">'
        b'<a xmlns="u" xmlns:v="w" xml:lang="en"><v:b v:c="1">q &eacute;&amp;</v:b></a>'
    )
    assert (root.tag, root.get("lang"), root[0].tag, root[0].get("c")) == ("a", "en", "b", "1")
    assert text_of(root) == "q é&"


@pytest.mark.parametrize(
    "document, message",
    [
        (BOMB, "declares entities"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "declares entities"),
        ('<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd"> %x;]><a/>', "declares entities"),
        ("<a>" * 300, "more than 200 elements"),
        ("<a><b></a>", "mismatched tag"),
        ("<a>", "truncated"),
        ("", "truncated"),
        ('<?xml version="1.0" encoding="no-such"?><a/>', "unknown encoding"),
    ],
)
def test_invalid_or_dangerous_xml_is_refused(document, message):
    with pytest.raises(BrokenXML, match=message):
        parse(document.encode())


def test_an_external_entity_is_never_read(tmp_path):
    (tmp_path / "secret").write_text("secret")
    root = parse(f'<!DOCTYPE a SYSTEM "file://{tmp_path}/secret"><a>&x;</a>'.encode())
    assert text_of(root) == "&x;"
