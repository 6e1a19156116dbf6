"""Adapters beside PEFT: it loads those written here with the same logits, and trains them to the same losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers_families import state_of

from gptjax.data.facts import DataFacts
from gptjax.interop.peft import read_adapter, write_adapter
from gptjax.model import lora
from gptjax.model.families import family_of
from gptjax.planning import plan

torch = pytest.importorskip("torch", reason="needs pip install 'gptjax[parity]'")
transformers = pytest.importorskip("transformers", reason="needs pip install 'gptjax[parity]'")
peft = pytest.importorskip("peft", reason="needs pip install 'gptjax[parity]'")

STEPS = 20
KINDS = {
    "llama": dict(model__lora_rslora=True),
    "qwen3": dict(model__qk_norm=True, model__lora_dora=True),
    "some": dict(model__lora_target="layers/attention/(query|value)"),
}


@pytest.fixture(params=KINDS)
def both(request, tiny_config, random_params, tmp_path):
    """(config, parameters with random adapters, PEFT's model with the adapter that was written for it)"""
    config = tiny_config(
        model__lora_rank=4,
        model__lora_alpha=8.0,
        model__norm_epsilon=1e-6,
        model__dtype="float32",
        mesh__data=1,
        optimizer__learning_rate=3e-3,
        optimizer__gradient_clip=0.0,
        schedule__name="constant",
        schedule__warmup="0 steps",
        **KINDS[request.param],
    )
    params, model = random_params(config.model), config.model
    base = lora.base_of(params)
    # New adapters, whose magnitudes are those of the base, and then a random B.
    params = jax.device_get(lora.completed(family_of(model).declarations, base, jax.random.key(0)))
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: (
            np.random.default_rng(len(path)).normal(0, 0.1, x.shape).astype(np.float32)
            if path[-1].key == "b"
            else np.array(x)
        ),
        params,
    )
    kind = "Qwen3" if model.qk_norm else "Llama"
    theirs = getattr(transformers, f"{kind}Config")(
        vocab_size=model.vocab_size,
        hidden_size=model.width,
        intermediate_size=model.feedforward_width,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        num_key_value_heads=model.num_kv_heads,
        head_dim=model.head_width,
        rms_norm_eps=model.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta},
        tie_word_embeddings=True,
    )
    causal = getattr(transformers, f"{kind}ForCausalLM")(theirs)
    state = state_of(kind.lower(), lora.without_adapters(model), base)
    causal.load_state_dict({name: torch.tensor(array) for name, array in state.items()}, strict=False)
    causal.tie_weights()
    (tmp_path / "adapter").mkdir()
    write_adapter(tmp_path / "adapter", model, params, "", "base")
    loaded = peft.PeftModel.from_pretrained(causal, tmp_path / "adapter", is_trainable=True)
    return config, params, loaded, tmp_path


def test_peft_reads_and_writes_the_same_adapter(both):
    config, params, theirs, folder = both
    tokens = np.random.default_rng(0).integers(0, config.model.vocab_size, (2, 8))
    module = family_of(config.model).module()
    ours = module.apply({"params": params}, jnp.asarray(tokens))
    expected = theirs(torch.tensor(tokens)).logits.detach().numpy()
    np.testing.assert_allclose(ours, expected, atol=2e-5)
    theirs.save_pretrained(folder / "theirs")
    model, arrays, _ = read_adapter(folder / "theirs", lora.without_adapters(config.model))
    declared = family_of(config.model).declarations
    assert {path for path in jax.tree.leaves(jax.tree.map(lambda p: p.shape, family_of(model).declarations))} == {
        path for path in jax.tree.leaves(jax.tree.map(lambda p: p.shape, declared))
    }
    np.testing.assert_array_equal(
        arrays["layers"]["attention"]["query_lora"]["b"], params["layers"]["attention"]["query_lora"]["b"]
    )


def test_training_has_the_losses_of_peft(both):
    config, params, theirs, _ = both
    optimizer = config.optimizer
    trained = [(name, p) for name, p in theirs.named_parameters() if p.requires_grad]
    groups = [
        dict(params=[p for _, p in trained if p.ndim == 2], weight_decay=optimizer.weight_decay),
        dict(params=[p for _, p in trained if p.ndim == 1], weight_decay=0.0),
    ]
    adamw = torch.optim.AdamW(
        groups, lr=optimizer.learning_rate, betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.epsilon
    )
    trainer = plan(config, DataFacts(config.model.vocab_size), jax.devices()[:1]).trainer
    shape = (1, config.training.batch_size, config.data.sequence_length + 1)
    losses = []
    with jax.set_mesh(trainer.mesh):
        state, step = trainer.init(params), trainer.compile_train_step(trainer.abstract_batch())
        for number in range(STEPS):
            tokens = np.random.default_rng(number).integers(0, config.model.vocab_size, shape).astype(np.int32)
            batch = {"tokens": tokens[..., :-1], "targets": tokens[..., 1:]}
            batch["weights"] = np.ones(batch["targets"].shape, np.float32)
            state, metrics = step(state, jax.device_put(batch, trainer.abstract_batch()["tokens"].sharding))
            logits = theirs(torch.tensor(batch["tokens"][0])).logits.flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(batch["targets"][0]).long().flatten())
            adamw.zero_grad()
            loss.backward()
            adamw.step()
            losses.append((float(metrics["train/loss"]), loss.item()))
    ours, expected = np.array(losses).T
    np.testing.assert_allclose(ours, expected, rtol=2e-4)
    assert expected[-5:].mean() < expected[:5].mean() - 0.05
