"""vLLM loads our exports: the same logits where it is named beside an export, and others, or none, where it is not.

vLLM itself reads config.json, chooses the class, and loads the weights. Neither a GPU nor its compiled code is needed:
layers run as their PyTorch versions, and attention and the product of experts, which have none, are written out here.
Its sources on PYTHONPATH are enough, with the pure Python packages that they import.
"""

import logging

import numpy as np
import pytest
from huggingface_models import MODELS, written
from loader_models import CASES
from random_models import MAX_POSITIONS, TOKENIZER, logits_of, make_model

from gptjax.interop.huggingface.families import FAMILIES
from gptjax.interop.huggingface.programs import VLLM, computes

pytest.importorskip("vllm")
torch = pytest.importorskip("torch")

WITHOUT_CASE = {name: (name, MODELS[name]) for name in VLLM.keys() - {family for family, *_ in CASES.values()}}
EXPORTS = {name: (family, settings) for name, (family, settings, *_) in CASES.items()} | WITHOUT_CASE


def attention(layer, query, key, value, *_, **__):
    """Over one text, by what vLLM gave the layer: a scale, a window, a limit of scores."""
    length, groups = query.shape[0], layer.num_heads // layer.num_kv_heads
    q, k, v = (x.view(length, -1, layer.head_size).transpose(0, 1) for x in (query, key, value))
    k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
    scores = q @ k.transpose(1, 2) * layer.impl.scale
    if limit := getattr(layer.impl, "logits_soft_cap", None):
        scores = torch.tanh(scores / limit) * limit
    distance = torch.arange(length)[:, None] - torch.arange(length)
    seen = (distance >= 0) & (distance < (layer.sliding_window or length))
    scores = scores.masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(0, 1).reshape(length, -1)


def experts(layer, output, hidden_states, w1, w2, topk_weights, topk_ids, **_):
    """The products of the experts that vLLM chose for each token, with the shares that it gave them."""
    output.zero_()
    for token, chosen in enumerate(topk_ids.tolist()):
        for expert, share in zip(chosen, topk_weights[token]):
            gate, up = (w1[expert] @ hidden_states[token]).chunk(2)
            output[token] += share * (w2[expert] @ (torch.nn.functional.silu(gate) * up))


def engine_config(folder):
    from vllm.engine.arg_utils import EngineArgs

    options = dict(dtype="float32", enforce_eager=True, skip_tokenizer_init=True)
    return EngineArgs(model=str(folder), **options).create_engine_config()


@pytest.fixture(scope="module", autouse=True)
def without_kernels(tmp_path_factory):
    """vLLM on the CPU without its compiled code, as one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_TARGET_DEVICE", "cpu")
        patch.setenv("HF_HUB_OFFLINE", "1")
        import vllm.platforms
        from vllm.platforms.cpu import CpuPlatform

        patch.setattr(vllm.platforms, "_current_platform", CpuPlatform(), raising=False)
        logging.getLogger("vllm").setLevel(logging.ERROR)
        compiled = torch.library.Library("_C", "FRAGMENT")
        compiled.define("gelu_new(Tensor(a!) out, Tensor x) -> ()")  # is looked up, and not called
        from vllm.config import set_current_vllm_config
        from vllm.distributed import init_distributed_environment, initialize_model_parallel
        from vllm.model_executor.custom_op import CustomOp
        from vllm.model_executor.layers.attention.attention import Attention
        from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts

        patch.setattr(CustomOp, "dispatch_forward", lambda self, *_, **__: self.forward_native)
        patch.setattr(Attention, "forward", attention)
        patch.setattr(CPUUnquantizedExperts, "process_weights_after_loading", lambda self, layer: None)
        patch.setattr(CPUUnquantizedExperts, "_supports_grouped_gemm", classmethod(lambda cls, config: (True, None)))
        patch.setattr(CPUUnquantizedExperts, "apply", experts)
        folder = tmp_path_factory.mktemp("experts")
        written(folder, "mixtral")  # vLLM makes a group of devices for experts only for a model that has some
        with set_current_vllm_config(engine_config(folder)):
            init_distributed_environment(1, 0, f"file://{folder}/devices", 0, "gloo")
            initialize_model_parallel(1, 1)
        yield


@pytest.mark.parametrize("name", EXPORTS)
def test_vllm_computes_an_export_exactly_if_it_is_named(name, tmp_path, monkeypatch):
    from vllm.config import set_current_vllm_config
    from vllm.forward_context import set_forward_context
    from vllm.model_executor.model_loader import get_model

    family, settings = EXPORTS[name]
    monkeypatch.setitem(MODELS, family, settings)
    written(tmp_path, family)
    params, config = make_model(**settings)
    tokens = np.random.default_rng(0).integers(0, TOKENIZER.vocab_size, MAX_POSITIONS)
    expected = logits_of(params, config, tokens)
    is_named = computes(VLLM[family], FAMILIES[family], config.model)
    try:
        engine = engine_config(tmp_path)
        with set_current_vllm_config(engine), torch.no_grad(), set_forward_context(None, engine):
            model = get_model(vllm_config=engine)
            positions = torch.arange(len(tokens))
            hidden = model(input_ids=torch.tensor(tokens), positions=positions, intermediate_tensors=None)
            actual = model.compute_logits(hidden).numpy()[:, : expected.shape[1]]
    except AssertionError as error:
        assert "Sliding window for some but all layers" in str(error) and not is_named
        return
    difference = np.abs(actual - expected).max() / np.abs(expected).max()
    assert (difference < 5e-6) == is_named  # NaN where vLLM leaves a head without numbers
