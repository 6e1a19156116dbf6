"""Twenty-five training steps repeated by PyTorch in float64: its model, its AdamW, and a schedule written anew."""

import math

import jax
import numpy as np
import pytest
from transformers_families import state_of, torch, transformers

from gptjax.data.facts import DataFacts
from gptjax.planning import plan

STEPS, WARMUP = 25, 5


def batch(config, step):
    rng = np.random.default_rng(step)
    shape = (1, config.training.batch_size, config.data.sequence_length)
    tokens = rng.integers(0, config.model.vocab_size, (*shape[:2], shape[2] + 1)).astype(np.int32)
    weights = (rng.random(shape) < 0.7).astype(np.float32)
    return {"tokens": tokens[..., :-1], "targets": tokens[..., 1:], "weights": weights}


def test_losses_norms_and_parameters_equal_pytorch(tiny_config, random_params):
    config = tiny_config(
        model__num_kv_heads=0,
        model__norm="layernorm",
        model__bias="all",
        model__feedforward="gelu",
        model__position="learned",
        model__dtype="float32",
        mesh__data=1,
        optimizer__learning_rate=3e-3,
        optimizer__gradient_clip=0.8,
        schedule__warmup=f"{WARMUP} steps",
        training__duration=f"{STEPS} steps",
    )
    optimizer, params = config.optimizer, random_params(config.model)
    theirs = transformers.GPT2Config(
        n_embd=config.model.width,
        n_layer=config.model.num_layers,
        n_head=config.model.num_heads,
        vocab_size=config.model.vocab_size,
        n_positions=config.model.max_positions,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    )
    model = transformers.GPT2LMHeadModel(theirs).to(torch.float64)
    state = state_of("gpt2", config.model, params)
    load = {name: torch.tensor(array, dtype=torch.float64) for name, array in state.items()}
    model.load_state_dict(load, strict=False)
    model.tie_weights()
    decayed = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [dict(params=decayed, weight_decay=optimizer.weight_decay), dict(params=others, weight_decay=0.0)]
    adamw = torch.optim.AdamW(groups, betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.epsilon)

    trainer = plan(config, DataFacts(config.model.vocab_size), jax.devices()[:1]).trainer
    with jax.set_mesh(trainer.mesh):
        state = trainer.init(params)
        step_fn = trainer.compile_train_step(trainer.abstract_batch())
        clipped = 0
        for step in range(STEPS):
            arrays = batch(config, step)
            state, metrics = step_fn(state, jax.device_put(arrays, trainer.abstract_batch()["tokens"].sharding))
            loss, norm = pytorch_step(model, adamw, arrays, rate(optimizer.learning_rate, step + 1), 0.8)
            clipped += norm > 0.8
            assert float(metrics["train/loss"]) == pytest.approx(loss, rel=2e-6), step
            assert float(metrics["train/gradient_norm"]) == pytest.approx(norm, rel=2e-5), step
    assert 0 < clipped
    final = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    for name, array in state_of("gpt2", config.model, jax.device_get(state.params)).items():
        if name.endswith(
            "c_attn.bias"
        ):  # the gradient of the keys' bias is only rounding, which AdamW turns into steps
            array, final[name] = (
                np.delete(bias, np.s_[len(bias) // 3 : 2 * len(bias) // 3]) for bias in (array, final[name])
            )
        np.testing.assert_allclose(array, final[name], rtol=1e-4, atol=2e-5, err_msg=name)


def rate(peak, update):
    """A warm-up, then half a cosine that falls to a tenth."""
    if update < WARMUP:
        return peak * update / WARMUP
    return peak * (0.1 + 0.9 * (1 + math.cos(math.pi * (update - WARMUP) / (STEPS - WARMUP))) / 2)


def pytorch_step(model, adamw, arrays, learning_rate, limit):
    tokens, targets = (torch.tensor(arrays[name][0], dtype=torch.int64) for name in ("tokens", "targets"))
    weights = torch.tensor(arrays["weights"][0], dtype=torch.float64)
    log_p = torch.log_softmax(model(tokens).logits, -1)
    loss = -(log_p.gather(-1, targets[..., None])[..., 0] * weights).sum() / weights.sum()
    adamw.zero_grad()
    loss.backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
    for parameter in model.parameters():
        parameter.grad *= min(1.0, limit / norm)
    for group in adamw.param_groups:
        group["lr"] = learning_rate
    adamw.step()
    return loss.item(), norm.item()
