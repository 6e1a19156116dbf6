"""The model card: its front matter is what the Hugging Face hub reads, and nothing of the machine is in it."""

import pytest
from markdown_it import MarkdownIt
from reported_runs import HOST, write_run

from gptjax.errors import ConfigError
from gptjax.reporting.card import card, front_matter, write_card, yaml
from gptjax.reporting.document import Code, Paragraph
from gptjax.reporting.facts import gather

ModelCard = pytest.importorskip("huggingface_hub").ModelCard
parse_yaml = pytest.importorskip("yaml").safe_load


def test_the_hub_reads_what_the_run_records(run, tmp_path):
    loading = [Paragraph("With transformers:"), Code("AutoModelForCausalLM.from_pretrained('mine')")]
    path = write_card(tmp_path, run, license="mit", library_name="transformers", loading=loading, base_model="a/b")
    read = ModelCard.load(path)
    assert (read.data.license, read.data.library_name, read.data.pipeline_tag, read.data.base_model) == (
        *("mit", "transformers", "text-generation", "a/b"),
    )
    assert {"gptjax", "decoder", "next_token"} <= set(read.data.tags)
    (result,) = [
        each for each in read.data.eval_results if each.dataset_type == "owner/quiz" and "quiz" in each.dataset_name
    ]
    assert (result.metric_type, result.metric_value, result.task_type) == ("accuracy", 62.5, "text-generation")
    assert [each.metric_value for each in read.data.eval_results if each.metric_type == "loss"] == [3.0]
    assert "62.5 % ± 3.1" in read.text and "AutoModelForCausalLM" in read.text


def test_a_language_a_licence_and_a_base_model_that_are_not_known_are_not_invented(run):
    fields = parse_yaml(front_matter(gather(run)))
    assert fields["license"] == "unknown" and not {"language", "datasets", "base_model"} & fields.keys()


def test_folders_and_hosts_of_the_machine_are_not_in_the_card(run):
    text = card(gather(run))
    assert "books" in text and "mine" in text
    for secret in (str(run.parent.parent), HOST, "/mnt/secret", "inhouse7"):
        assert secret not in text


def test_markup_of_data_stays_text(run):
    text = card(gather(run)).partition("\n---\n")[2]
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert "<details>" in page and "<table>" in page, "HTML of the card itself is read as such"
    assert "alert(" in page and "<script" not in page, "a task's name is in tables, a sample in a code block"


@pytest.mark.parametrize("license", ["MIT", "my licence", "a\nb"])
def test_a_licence_that_the_hub_does_not_know_how_to_write_is_refused(run, tmp_path, license):
    with pytest.raises(ConfigError, match="--license"):
        write_card(tmp_path, run, license=license)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["a: b", "- x", "'", '"', "\\", "#", "é\u2028🙂", "null", "1", "%", "a\nb", "\x07", " ", "\x85\x7f\ufeff"]
)
def test_any_text_is_the_same_after_yaml(text):
    value = {"one": text, "list": [text, {"deep": {"deeper": text}, "number": 1.5}], "empty": ""}
    assert parse_yaml(yaml(value)) == value


def test_an_imported_model_is_not_said_to_be_trained_here(tmp_path):
    write_run(
        tmp_path / "run", tmp_path / "data", imported={"architecture": "Arch", "config": {"_name_or_path": "a/b"}}
    )
    for name in ("metrics.jsonl", "history.jsonl"):
        (tmp_path / "run" / name).unlink()
    text = card(gather(tmp_path / "run"))
    assert parse_yaml(text.split("---")[1])["base_model"] == "a/b"
    assert "Its parameters were imported (Arch)" in text and "It predicted" not in text


@pytest.mark.parametrize("name", ["/home/x/model", "model", "./a/b", None, 5])
def test_a_base_model_without_a_name_on_the_hub_is_left_out(tmp_path, name):
    imported = {"architecture": "Arch", "config": {"_name_or_path": name}}
    write_run(tmp_path / "run", tmp_path / "data", imported=imported)
    assert "base_model" not in parse_yaml(front_matter(gather(tmp_path / "run")))
