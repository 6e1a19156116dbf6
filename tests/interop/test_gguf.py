"""A GGUF file holds every tensor and every setting, as the gguf package reads it; llama.cpp is in tests/parity."""

import gguf_models
import numpy as np
import pytest
from gguf_models import CHAT, MODELS, write
from huggingface_models import GROUPED, save_run
from sentencepiece_models import FOREIGN, GEMMA, sentencepiece_model

from gptjax import export
from gptjax.config import ConfigError
from gptjax.conversation import load_template
from gptjax.interop.gguf import DTYPES, write_gguf
from gptjax.interop.gguf_check import ROUNDING
from gptjax.interop.gguf_model import FULL, WINDOWED, check_model
from gptjax.interop.huggingface.tensors import Written
from gptjax.tokenizer import ByteTokenizer, CharacterTokenizer

gguf = pytest.importorskip("gguf")
TOKENIZERS = gguf_models.tokenizers()
TENSORS = [name for name in MODELS if " " not in name or name == "llama llama3"]  # the others have the same ones
PERMUTED = {"llama", "mistral", "mixtral"}
TOLERANCE = {"float32": 0, "float16": 1e-3, "bfloat16": 8e-3, "q8_0": 8e-3}  # of the largest number of a tensor


def field(reader, name):
    found = reader.get_field(name)
    return None if found is None else found.contents()


def interleaved(array, heads):
    """Row i of the first half of a head, then row i of the second half."""
    width = len(array) // heads
    rows = [
        head * width + half * (width // 2) + i for head in range(heads) for i in range(width // 2) for half in (0, 1)
    ]
    return array[rows]


def value_there(tensor, tensors, family, content):
    """What a tensor of the export must be in the file, or None where it is a part of another one."""
    expected = tensor.value()
    if ".experts." in tensor.name:
        first = tensor.name.partition(".experts.")[0]
        kind = tensor.name.rsplit(".", 2)[1]
        if ".experts.0." not in tensor.name:
            return None
        return np.stack([each.value() for each in tensors if each.name.startswith(first) and f".{kind}." in each.name])
    if tensor.name.endswith("norm.weight"):
        return expected + (family == "gemma3")
    for part, heads in (("q_proj", content["num_attention_heads"]), ("k_proj", content["num_key_value_heads"])):
        if part in tensor.name and family in PERMUTED:
            return interleaved(expected, heads)
    return expected


@pytest.mark.parametrize("name, dtype", [*((name, "float32") for name in TENSORS), *(("qwen3", d) for d in TOLERANCE)])
def test_every_tensor_is_read_back(name, dtype, tmp_path):
    tokenizer, family = TOKENIZERS["bpe"], name.split()[0]
    _, _, content, tensors, notes = write(tmp_path / "m.gguf", name, tokenizer, dtype)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    found = {tensor.name: tensor for tensor in reader.tensors}
    architecture = field(reader, "general.architecture").upper()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture], content["num_hidden_layers"])
    expected = {
        names.get_name(tensor.name.replace(".experts.0.", ".experts."), try_suffixes=(".weight", ".bias")): value
        for tensor in tensors
        if (value := value_there(tensor, tensors, family, content)) is not None
    }
    # llama.cpp's OLMo has no tied head
    assert found.keys() - expected.keys() == {"rope_freqs.weight"} & found.keys() | (
        {"output.weight"} if architecture in ("OLMO2", "OLMOE") else set()
    )
    for there, value in expected.items():
        stored = found[there]
        values = gguf.dequantize(stored.data, stored.tensor_type)
        assert values.shape == value.shape
        assert np.abs(values - value).max() <= TOLERANCE[dtype] * np.abs(value).max(), there
        if value.ndim == 1:
            assert stored.tensor_type.name == "F32"
    if dtype == "q8_0":
        assert "no multiple of 32" in notes[-1], "the width of heads times their number is 48"


def test_llama_3s_frequencies_are_divided_by_published_factors(tmp_path):
    """As Llama 3.1 defines them: here 16 positions were the original context, and its fastest turns are kept."""
    write(tmp_path / "m.gguf", "llama llama3", TOKENIZERS["byte"])
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    found = next(each.data for each in reader.tensors if each.name == "rope_freqs.weight")
    turns = 16 * 5e5 ** -(np.arange(8) / 8) / (2 * np.pi)
    kept = np.clip((turns - 1) / (4 - 1), 0, 1)
    np.testing.assert_allclose(found, 1 / (kept + (1 - kept) / 8), rtol=1e-6)
    assert 1 < found[0] < 8 and found[-1] == 8
    assert field(reader, "llama.rope.scaling.type") is None


@pytest.mark.parametrize(
    "name, expected",
    [
        ("llama linear", {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}),
        (
            "qwen3 attention_factor",
            {
                "qwen3.rope.scaling.type": "yarn",
                "qwen3.rope.scaling.factor": 4.0,
                "qwen3.rope.scaling.original_context_length": 12,
                "qwen3.rope.scaling.yarn_beta_fast": 4.0,
                "qwen3.rope.scaling.yarn_beta_slow": 1.0,
                "qwen3.rope.scaling.attn_factor": pytest.approx(1.4 / (1 + 0.1 * np.log(4))),
            },
        ),
        (
            "qwen3_moe",
            {
                "qwen3moe.expert_count": 4,
                "qwen3moe.expert_used_count": 2,
                "qwen3moe.expert_feed_forward_length": 48,
            },
        ),
        (
            "gemma3",
            {
                "gemma3.attention.sliding_window": 8,
                "gemma3.attention.sliding_window_pattern": 3,
                "gemma3.rope.freq_base": 1e4,
                "gemma3.rope.freq_base_swa": 100.0,
                "gemma3.rope.scaling.factor": 8.0,
            },
        ),
    ],
)
def test_what_is_special_about_a_family_is_read_back(name, expected, tmp_path):
    write(tmp_path / "m.gguf", name, TOKENIZERS["byte"])
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert {key: field(reader, key) for key in expected} == expected


def test_every_setting_is_read_back(tmp_path):
    tokenizer = TOKENIZERS["bpe"]
    write(tmp_path / "m.gguf", "qwen3", tokenizer, vocab_size=640)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    expected = {
        "general.architecture": "qwen3",
        "qwen3.context_length": 48,
        "qwen3.embedding_length": 32,
        "qwen3.block_count": 2,
        "qwen3.feed_forward_length": 48,
        "qwen3.attention.head_count": 4,
        "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 12,
        "qwen3.attention.value_length": 12,
        "qwen3.rope.dimension_count": 12,
        "qwen3.rope.freq_base": 5e4,
        "qwen3.vocab_size": 640,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.bos_token_id": tokenizer.eos_id,
        "tokenizer.ggml.eos_token_id": tokenizer.control_ids["<|im_end|>"],
        "tokenizer.ggml.eot_token_id": tokenizer.control_ids["<|im_end|>"],
        "tokenizer.ggml.padding_token_id": tokenizer.pad_id,
        "tokenizer.ggml.unknown_token_id": tokenizer.unk_id,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }
    assert {name: field(reader, name) for name in expected} == expected
    assert field(reader, "qwen3.attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)
    template = field(reader, "tokenizer.chat_template")
    assert "bos_token" in template and "generation -%}" not in template, "not every reader of GGUF knows that block"
    tokens, types = field(reader, "tokenizer.ggml.tokens"), field(reader, "tokenizer.ggml.token_type")
    assert len(tokens) == len(types) == len(field(reader, "tokenizer.ggml.scores")) == 640
    assert tokens[tokenizer.vocab_size] == f"[PAD{tokenizer.vocab_size}]" and types[-1] == 5
    assert types[tokenizer.control_ids["<|im_end|>"]] == 3 and types[tokens.index("\n")] == 4


@pytest.mark.parametrize("name, words", [("gpt2", "gpt-2"), ("llama3", "llama-bpe"), ("qwen", "qwen2")])
def test_byte_level_tokenizers_name_their_words(name, words, tmp_path):
    tokenizer = TOKENIZERS[name]
    *_, notes = write(tmp_path / "m.gguf", "qwen3", tokenizer)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert (field(reader, "tokenizer.ggml.model"), field(reader, "tokenizer.ggml.pre")) == ("gpt2", words)
    assert len(field(reader, "tokenizer.ggml.merges")) == len(tokenizer.content["model"]["merges"])
    assert any("normalize" in note for note in notes) is (name == "qwen")


@pytest.mark.parametrize(
    "tokenizer, said",
    [
        (CharacterTokenizer("ab"), "tokenizer.kind = 'char'"),
        (sentencepiece_model("bpe", **GEMMA), "user-defined symbol"),
        (sentencepiece_model("bpe", **FOREIGN["no bytes"][1]), "no byte_fallback"),
        (sentencepiece_model("unigram", **FOREIGN["unigram"][1]), "tokenizer.kind = 'unigram'"),
        (gguf_models.theirs("llama2"), "pre_tokenizer"),
    ],
    ids=["char", "symbols", "no bytes", "unigram", "llama2"],
)
def test_a_tokenizer_that_llama_cpp_does_not_have_is_refused(tokenizer, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        write(tmp_path / "m.gguf", "llama", tokenizer.extended(CHAT.controls))
    assert not (tmp_path / "m.gguf").exists()


YARN, LLAMA3 = {"rope_type": "yarn", "truncate": False}, {"rope_type": "llama3"}
HEADS = dict(num_attention_heads=4, num_key_value_heads=2)
GEMMA3 = dict(model_type="gemma3_text", query_pre_attn_scalar=8, head_dim=8)


@pytest.mark.parametrize(
    "change, said",
    [
        (dict(model_type="gpt2"), "model_type = 'gpt2': must be one of llama"),
        (dict(rope_parameters={"rope_type": "longrope"}), "rope_type = 'longrope': must be one of default, linear"),
        (dict(rope_parameters=YARN), "truncate = False: must be True"),
        (dict(rope_parameters={"partial_rotary_factor": 0.5}), "partial_rotary_factor = 0.5: must be 1"),
        (
            dict(model_type="qwen3", rope_parameters=LLAMA3),
            "rope_type = 'llama3': must be one of default, linear, yarn",
        ),
        (dict(model_type="qwen3", attention_bias=True), "attention_bias = True: must be False"),
        (dict(sliding_window=8), "sliding_window = 8: must be None"),
        (dict(hidden_act="gelu"), "hidden_act = 'gelu': must be 'silu'"),
        (dict(model_type="qwen3_moe", norm_topk_prob=False), "norm_topk_prob = False: must be True"),
        (dict(model_type="olmoe", norm_topk_prob=True), "norm_topk_prob = True: must be False"),
        (dict(model_type="olmoe", **HEADS), "num_key_value_heads = 2: must be num_attention_heads = 4"),
        (GEMMA3 | dict(final_logit_softcapping=30.0), "final_logit_softcapping = 30.0: must be None"),
        (GEMMA3 | dict(head_dim=16), "query_pre_attn_scalar = 8: must be head_dim = 16"),
        (GEMMA3 | dict(layer_types=[FULL, WINDOWED]), "layer_types = .*: every n-th must be full_attention"),
    ],
)
def test_a_model_that_llama_cpp_does_not_compute_is_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        check_model({"model_type": "llama"} | change)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    tokenizer = ByteTokenizer()
    _, _, content, tensors, _ = write(tmp_path / "m.gguf", "llama", TOKENIZERS["byte"])
    bad = Written(tensors[0].name, tensors[0].shape, lambda: np.full(tensors[0].shape, np.nan))
    with pytest.raises(ConfigError, match="not finite"):
        write_gguf(tmp_path / "bad.gguf", content, [bad, *tensors[1:]], tokenizer, None, begin_id=None)
    assert not (tmp_path / "bad.gguf").exists()


def run_export(folder, output, *flags):
    export.flags.parse(["export", f"--workdir={folder}", f"--output={output}", "--format=gguf", *flags])
    export.main([])


@pytest.mark.parametrize("dtype", ROUNDING)
def test_no_number_is_rounded_by_more_than_the_check_allows(dtype):
    """Also those of trained models, which have blocks of q8_0 with every mantissa of a scale."""
    blocks = np.random.default_rng(0).normal(size=(4_000, 32)).astype(np.float32)
    kind = gguf.GGMLQuantizationType[DTYPES[dtype]]
    stored = gguf.dequantize(gguf.quantize(blocks, kind), kind)
    rounding = np.abs(stored - blocks).max(axis=1) / np.abs(blocks).max(axis=1)
    assert 0.9 * ROUNDING[dtype] <= rounding.max() <= ROUNDING[dtype]


def test_a_run_is_exported_as_a_folder_with_one_file_and_a_card(tmp_path, capsys):
    save_run(tmp_path / "run", template=load_template("turns"), **MODELS["qwen3"])
    run_export(tmp_path / "run", tmp_path / "mine", "--dtype=q8_0", "--check=own")
    said = capsys.readouterr().out
    assert "read back: its numbers differ from those of the run by" in said and "not compared with llama.cpp" in said
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["README.md", "mine-q8_0.gguf"]
    reader = gguf.GGUFReader(tmp_path / "mine/mine-q8_0.gguf")
    assert "<|assistant|>" in field(reader, "tokenizer.chat_template")
    assert "mine-q8_0.gguf" in (tmp_path / "mine/README.md").read_text()


@pytest.mark.parametrize(
    "model, flags, said",
    [
        (dict(logit_softcap=30.0), [], "model_type = 'gemma2'|no family"),
        (MODELS["qwen3"], ["--notokenizer"], "a GGUF file always has a tokenizer"),
        (MODELS["qwen3"], ["--dtype=q4_0"], "must be one of float32, float16, bfloat16, q8_0"),
        (GROUPED | dict(window=8, window_pattern="S"), [], "sliding_window = 8"),
    ],
)
def test_a_run_that_cannot_be_written_leaves_no_folder(model, flags, said, tmp_path):
    save_run(tmp_path / "run", **model)
    with pytest.raises(ConfigError, match=said):
        run_export(tmp_path / "run", tmp_path / "mine", *flags)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
