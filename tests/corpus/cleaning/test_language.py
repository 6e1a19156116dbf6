import sys

import pytest

from gptjax.config import ConfigError
from gptjax.corpus.cleaning import language
from gptjax.corpus.cleaning.language import identify

TEXTS = {
    "en": "The committee met on Tuesday to discuss what should be done about the old bridge.",
    "de": "Der Ausschuss traf sich am Dienstag, um zu besprechen, was mit der alten Brücke geschehen soll.",
    "fr": "Le comité s'est réuni mardi pour discuter de ce qu'il fallait faire du vieux pont.",
    "ru": "Комитет собрался во вторник, чтобы обсудить, что делать со старым мостом.",
    "zh": "委员会星期二开会讨论应该如何处理这座旧桥。",
}


@pytest.mark.parametrize("code", TEXTS)
def test_the_language_of_a_text_is_identified(code):
    found, confidence = identify(TEXTS[code])
    assert found == code and 0.65 < confidence <= 1


def test_a_long_text_is_identified_by_samples():
    menu = "Home | About | Contact | Login " * 8
    assert identify(menu + TEXTS["de"] * 1000 + menu)[0] == "de"
    assert len(language._sample("x" * 1_000_000)) < 2000


@pytest.mark.parametrize("text", ["", "123 456 …", "— — —"])
def test_text_without_letters_has_no_language(text):
    assert identify(text) == ("", 0.0)


def test_a_missing_library_is_reported_in_one_sentence(monkeypatch):
    language._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ConfigError, match="needs pip install 'gptjax\\[corpus\\]'"):
        identify(TEXTS["en"])
