import pytest

from gptjax.evaluation.tasks.template import MissingField, check, fill, fill_all

ROW = {"question": "Why?", "choices": ["a", "b"], "nested": {"text": ["x"]}, "count": 3, "nothing": None}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Q: {question}\n", "Q: Why?\n"),
        ("{choices[1]}{nested[text][0]}", "bx"),
        ("{{question}} {count}", "{question} 3"),
        ("{choices}", "a b"),
        ("{nothing}", ""),
    ],
)
def test_fields_are_replaced_by_values(template, text):
    assert not check(template)
    assert fill(template, ROW) == text


def test_a_template_of_one_list_gives_each_of_its_elements():
    assert fill_all(("{choices}", "or {question}"), ROW) == ("a", "b", "or Why?")


@pytest.mark.parametrize("template", ["{missing}", "{choices[7]}", "{nested[other]}", "{question[x]}"])
def test_a_missing_field_is_named(template):
    with pytest.raises(MissingField, match=template.strip("{}").partition("[")[0]):
        fill(template, ROW)


@pytest.mark.parametrize("template", ["{", "a } b", "{}", "{question!r}", "{question:>9}", "{question.__class__}{!}"])
def test_invalid_templates_are_refused(template):
    assert check(template)


def test_attributes_of_values_cannot_be_read():
    with pytest.raises(MissingField):
        fill("{question[__class__]}", ROW)
    with pytest.raises(MissingField):
        fill("{question.__class__}", ROW)
