import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax.corpus.cleaning.personal import KINDS, PLACEHOLDERS, mask

KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    "MIIEowIBAAKCAQEAu1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gun\n"
    "-----END RSA PRIVATE KEY-----"
)


@pytest.mark.parametrize(
    "kind, text",
    [
        ("email", "⟦jane.doe+news@mail.university.ac.uk⟧"),
        ("email", "<⟦o'neil_7@web.de⟧>, mailto:⟦x@y.org⟧."),
        ("ip", "from ⟦93.184.216.34⟧, http://⟦151.101.1.69⟧:80/"),
        ("ip", "ip=⟦93.184.216.34⟧ [⟦2606:2800:220:1:248:1893:25c8:1946⟧] ⟦2a00:1450:4001:82f::200e⟧"),
        ("phone", "call ⟦+44 20 7946 0958⟧ or ⟦(415) 555-2671⟧, ⟦415-555-2671⟧ or ⟦+4930123456⟧"),
        ("iban", "⟦DE89 3704 0044 0532 0130 00⟧ and ⟦GB29NWBK60161331926819⟧."),
        ("card", "⟦4111 1111 1111 1111⟧, ⟦5500-0000-0000-0004⟧ ⟦378282246310005⟧"),
        ("secret", "key = ⟦AKIAIOSFODNN7EXAMPLE⟧; ⟦ghp_" + "a1B2" * 9 + "⟧"),
        ("secret", "⟦" + KEY + "⟧"),
        ("secret", "⟦eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U⟧"),
        ("secret", "⟦sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc" + "⟧ ⟦AIza" + "Sy0123456789abcdefghijklmnopqrstuvw" + "⟧"),
    ],
)
def test_personal_data_is_found(kind, text):
    bare = text.replace("⟦", "").replace("⟧", "")
    masked, counts = mask(bare, [kind])
    pieces = text.split("⟦")
    assert masked == pieces[0] + "".join(PLACEHOLDERS[kind] + piece.split("⟧")[1] for piece in pieces[1:])
    assert counts == {kind: len(pieces) - 1}
    assert mask(bare, []) == (bare, {})


@pytest.mark.parametrize(
    "text",
    [
        "a@example.com, root@localhost, git@github.com:owner/name.git",
        "logo@2x.png, react@18.2.0, @app.route, return@forEach, a @ b.com",
        "version 1.20.30.40, v10.20.30.40, Chrome/91.10.44.12, numpy==1.20.30.40, Section 10.11.12.13",
        "10.0.0.1, 127.0.0.1, 192.168.1.1, 192.0.2.44, 255.255.255.0, 300.1.1.1, 1.2.3.4, 1.20.30.40.50",
        "std::vector<int> 12:30:45, dead::beef, fe80::1, 2001:db8::1, 2024:01:02",
        "in 2010-2014 there were 1,234,567 of 123-4567 or 2024-10-11 12:30",
        "DE89370400440532013001, XX89370400440532013000, DE8937040044053201300",
        "4111 1111 1111 1112, 1234567812345670, 0.4111111111111111, sha 4111111111111111a",
        "AKIA is one; ghp_short; no private key: -----BEGIN PUBLIC KEY-----; eyJ.eyJ.x; sk-learn-pipeline-of-steps",
    ],
)
def test_lookalikes_are_not_found(text):
    assert mask(text) == (text, dict.fromkeys(KINDS, 0))


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab1.@:+- ()/=4[]", max_size=60))
def test_masking_twice_changes_nothing_more(text):
    masked, counts = mask(text)
    assert sum(counts.values()) == sum(masked.count(each) for each in PLACEHOLDERS.values())
    assert mask(masked)[1] == dict.fromkeys(KINDS, 0)
