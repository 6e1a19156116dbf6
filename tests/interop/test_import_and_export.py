"""The commands export and import: a run survives the way out and back, on one device and on a mesh."""

import importlib
import json
import re

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from full_disks import fill_disk
from huggingface_models import MODELS, save_run, written
from random_models import TOKENIZER, make_model
from safetensors import safe_open
from sentencepiece_models import FOREIGN, sentencepiece_model

from gptjax import evaluate, export, sample
from gptjax.config import ConfigError, RunError
from gptjax.config.user_code import load_config
from gptjax.conversation import load_template
from gptjax.interop.huggingface import tensors
from gptjax.interop.huggingface.equivalence import differences_of
from gptjax.interop.huggingface.model_folder import open_model
from gptjax.interop.huggingface.weights import INDEX
from gptjax.model.families import family_of
from gptjax.parallel.mesh import make_mesh
from gptjax.parallel.sharding import placed_params
from gptjax.settings import MeshSettings
from gptjax.training.checkpoints.loading import load_for_inference, saved_metadata

import_command = importlib.import_module("gptjax.import")


def run_export(folder, output, *flags):
    export.flags.parse(["export", f"--workdir={folder}", f"--output={output}", "--check=own", *flags])
    export.main([])


def run_import(folder, output, *flags):
    import_command.flags.parse(["import", f"--output={output}", "--check=none", *flags])
    import_command.main(["import", str(folder)])


def assert_equal(params, others):
    flat, found = flatten_dict(params), flatten_dict(others)
    assert flat.keys() == found.keys()
    for path, array in flat.items():
        np.testing.assert_array_equal(np.asarray(found[path]), np.asarray(array), err_msg="/".join(path))


def test_a_tokenizer_that_cannot_be_written_is_refused_with_a_way_out(tmp_path):
    tokenizer = sentencepiece_model("unigram", **FOREIGN["unigram"][1])
    with pytest.raises(ConfigError, match=r"kind = 'unigram'.*--notokenizer exports the model without it"):
        export.write_tokenizers(tmp_path, make_model()[1].model, tokenizer, None, None)


def test_a_run_comes_back_by_export_and_import(tmp_path, capsys):
    model = save_run(tmp_path / "run", **MODELS["qwen3"]).model
    run_export(tmp_path / "run", tmp_path / "out")
    said = capsys.readouterr().out
    assert "README.md" in said
    assert "read back: its logits equal those of the run" in said and "vllm serve" in said
    run_import(tmp_path / "out", tmp_path / "back")
    assert "guessing has 5.58" in capsys.readouterr().out
    before, after = (load_for_inference(tmp_path / name) for name in ("run", "back"))
    assert_equal(before[0], after[0])
    assert not differences_of(model, after[1].model) and after[2]["step"] == 0
    assert saved_metadata(tmp_path / "back")["fingerprint"]["begin_id"] == TOKENIZER.eos_id
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(("full", "error"), [("config.json", OSError), ("checkpoints", RunError)])
def test_an_import_that_cannot_be_written_fails_and_leaves_nothing(tmp_path, monkeypatch, full, error):
    save_run(tmp_path / "run", **MODELS["llama"])
    run_export(tmp_path / "run", tmp_path / "out")
    fill_disk(monkeypatch, full)
    with pytest.raises(error, match="No space left"):
        run_import(tmp_path / "out", tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


@pytest.mark.exhaustive
def test_an_imported_run_is_evaluated_sampled_and_starts_others(tmp_path, capsys):
    """Its folder has what every command reads: tokenizer, config and metadata of a checkpoint."""
    save_run(tmp_path / "run", **MODELS["llama"])
    run_export(tmp_path / "run", tmp_path / "out")
    run_import(tmp_path / "out", tmp_path / "back")
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_text("the cat sat on the mat. " * 20)
    scores = []
    for name in ("run", "back"):
        evaluate.flags.parse(["evaluate", f"--workdir={tmp_path / name}", f"--text={tmp_path / 'text'}"])
        evaluate.main([])
        sample.flags.parse(["sample", f"--workdir={tmp_path / name}", "--prompt=Once", "--max_new_tokens=8"])
        sample.main([])
        said = capsys.readouterr().out
        scores.append((re.findall(r"\d+\.\d{4}", said), said.splitlines()[-1]))
    assert scores[0] == scores[1] and scores[0][0]
    start = load_config(f"configs/instructions.py:{tmp_path / 'back'}")
    assert start.model.width == 32 and start.training.init_from == str(tmp_path / "back")


def test_a_template_of_conversations_comes_back(tmp_path):
    template = load_template("turns")
    save_run(tmp_path / "run", template=template, **MODELS["llama"])
    run_export(tmp_path / "run", tmp_path / "out")
    content = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert content["eos_token_id"] == [TOKENIZER.control_ids["<|end|>"], TOKENIZER.eos_id]
    TOKENIZER.save(tmp_path / "out")
    run_import(tmp_path / "out", tmp_path / "back")
    assert saved_metadata(tmp_path / "back")["fingerprint"]["template"] == template.to_json()
    run_import(tmp_path / "out", tmp_path / "without", "--template=none")
    assert "template" not in saved_metadata(tmp_path / "without")["fingerprint"]
    with pytest.raises(ConfigError, match="the tokenizer has no control token"):
        run_import(tmp_path / "out", tmp_path / "other", "--template=chatml")


@pytest.mark.exhaustive  # a run and its parameters come back in the tests above and in test_huggingface.py
def test_the_export_of_an_import_is_the_same_file(tmp_path):
    save_run(tmp_path / "run", **MODELS["gpt2"])
    run_export(tmp_path / "run", tmp_path / "out", "--dtype=bfloat16")
    TOKENIZER.save(tmp_path / "out")
    run_import(tmp_path / "out", tmp_path / "back")
    run_export(tmp_path / "back", tmp_path / "again", "--dtype=bfloat16")
    assert (tmp_path / "out/config.json").read_text() == (tmp_path / "again/config.json").read_text()
    with (
        safe_open(tmp_path / "out/model.safetensors", "np") as one,
        safe_open(tmp_path / "again/model.safetensors", "np") as other,
    ):
        assert one.keys() == other.keys() and one.metadata()["format"] == "pt"
        for name in one.keys():
            np.testing.assert_array_equal(one.get_tensor(name), other.get_tensor(name))


def test_on_a_mesh_each_device_reads_its_own_part(tmp_path, monkeypatch):
    params, _ = written(tmp_path, "qwen3")
    largest = []
    read = tensors.Place.read

    def noted(self, *arguments, **named):
        array = read(self, *arguments, **named)
        largest.append(array.nbytes)
        return array

    monkeypatch.setattr(tensors.Place, "read", noted)
    opened = open_model(tmp_path)
    mesh = make_mesh(MeshSettings(data=1, fsdp=8), jax.devices()[:8])
    declared = family_of(opened.model).declarations
    found = opened.params(placed_params(mesh, declared))
    assert_equal(params, found)
    sizes = {path: array.nbytes for path, array in flatten_dict(params).items()}
    matrices = [size for path, size in sizes.items() if flatten_dict(declared)[path].kind != "vector"]
    assert max(largest) == max(matrices) // 8
    vectors = sum(sizes.values()) - sum(matrices)  # each device has all of these
    assert sum(matrices) <= opened.weights.bytes_read <= sum(matrices) + 8 * vectors


def test_rows_that_no_token_has_and_full_experts_are_mentioned(tmp_path, capsys):
    model = MODELS["mixtral"] | dict(vocab_size=288, expert_capacity=1.0)
    save_run(tmp_path / "run", **model)
    run_export(tmp_path / "run", tmp_path / "out")
    said = capsys.readouterr().out
    assert "the embedding has 23 more rows than the tokenizer has tokens" in said
    assert "experts take every token, as in generation here" in said
    assert open_model(tmp_path / "out").model.vocab_size == 288


def test_shards_are_as_small_as_asked_and_read_as_one(tmp_path):
    params, _ = written(tmp_path, "qwen3", shard_size=50_000)
    index = json.loads((tmp_path / INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files == [f"model-{number:05d}-of-00004.safetensors" for number in (1, 2, 3, 4)]
    assert all((tmp_path / file).stat().st_size < 60_000 for file in files)
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in flatten_dict(params).values())
    assert_equal(params, open_model(tmp_path).params())


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--family=lama"], "did you mean llama"),
        (["--family=qwen3"], "Qwen3ForCausalLM cannot express model.qk_norm = False"),
        (["--dtype=int4"], "--dtype=int4: must be one of float32, bfloat16, float16"),
        (["--shard_size=5"], "--shard_size=5: must be a size of at least 1MB"),
        (["--license=My Licence"], "--license='My Licence'"),
        (["--output=OUT/run"], "must be a new or an empty folder"),
    ],
)
def test_wrong_flags_of_export(flags, said, tmp_path):
    save_run(tmp_path / "run", **MODELS["llama"])
    with pytest.raises(ConfigError, match=said):
        run_export(tmp_path / "run", tmp_path / "new", *(flag.replace("OUT", str(tmp_path)) for flag in flags))
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob("*.tmp"))


def test_a_model_that_nothing_expresses_names_the_options_in_the_way(tmp_path):
    save_run(tmp_path / "run", **MODELS["llama"] | dict(logit_softcap=30.0, feedforward="relu2"))
    with pytest.raises(
        ConfigError, match=r"for llama: .*model.feedforward = 'relu2' \(it has 'swiglu'\), model.logit_s"
    ):
        run_export(tmp_path / "run", tmp_path / "out")


def test_a_run_with_numbers_that_are_not_finite_is_not_exported(tmp_path):
    def spoiled(params):
        params = jax.tree.map(np.array, params)
        params["layers"]["attention"]["key"][0, 1, 1, 1] = np.inf
        return params

    save_run(tmp_path / "run", spoiled, **MODELS["llama"])
    with pytest.raises(ConfigError, match=r"model.layers.0.self_attn.k_proj.weight has 1 numbers that are not finite"):
        run_export(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_whose_logits_are_not_finite_is_not_exported(tmp_path):
    def overflowing(params):
        return {**params, "final_norm": {"scale": np.full_like(params["final_norm"]["scale"], 3e38)}}

    save_run(tmp_path / "run", overflowing, **MODELS["llama"])
    with pytest.raises(RunError, match="logits are not finite, although its parameters are"):
        run_export(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_folders_of_import(tmp_path):
    written(tmp_path / "model", "llama")
    for folder, said in (
        (tmp_path / "none", "there is no such folder"),
        ("Qwen/Qwen3-0.6B", "hf download Qwen/Qwen3-0.6B"),
        (tmp_path / "model/config.json", "it is a file"),
        (tmp_path / "model", "holds neither tokenizer.model nor tokenizer.json"),
    ):
        with pytest.raises(ConfigError, match=said):
            run_import(folder, tmp_path / "run")
    TOKENIZER.extended(["<more>"]).save(tmp_path / "model")
    with pytest.raises(ConfigError, match="the tokenizer has 266 tokens, but the model has rows for vocab_size = 265"):
        run_import(tmp_path / "model", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_chat_template_of_others_is_recognized_or_named(tmp_path, capsys):
    save_run(tmp_path / "run", template=load_template("turns"), **MODELS["llama"])
    run_export(tmp_path / "run", tmp_path / "out")
    path = tmp_path / "out/tokenizer_config.json"
    settings = json.loads(path.read_text())
    others = settings["chat_template"].replace("message['content']", "('' ~ message['content'])")
    path.write_text(json.dumps(settings | {"chat_template": [{"name": "default", "template": others}]}))
    run_import(tmp_path / "out", tmp_path / "back")
    saved = saved_metadata(tmp_path / "back")["fingerprint"]["template"]
    assert saved["name"] == "imported" and saved["turns"] == load_template("turns").to_json()["turns"]
    path.write_text(json.dumps(settings | {"chat_template": others.replace("~", "~ loop.index ~")}))
    capsys.readouterr()
    run_import(tmp_path / "out", tmp_path / "without")
    said = capsys.readouterr().out
    assert "chat template is not recognized" in said and "--template=chatml" in said
    assert "template" not in saved_metadata(tmp_path / "without")["fingerprint"]
