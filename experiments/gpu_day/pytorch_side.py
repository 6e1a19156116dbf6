"""PyTorch's side of training: compiled, bfloat16 autocast, fused AdamW, fused attention, as PyTorch's users train."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Causal grouped-query attention by PyTorch's fused kernel; rotary where the model has no position embedding."""

    def __init__(self, model: Any):
        super().__init__()
        self.heads, self.kv_heads, self.head_width = model.num_heads, model.num_kv_heads, model.head_width
        bias = model.bias == "all"
        self.qkv = nn.Linear(model.width, (self.heads + 2 * self.kv_heads) * self.head_width, bias=bias)
        self.out = nn.Linear(self.heads * self.head_width, model.width, bias=bias)

    def forward(self, x: torch.Tensor, rotation: tuple | None) -> torch.Tensor:
        rows, length, _ = x.shape
        sizes = [heads * self.head_width for heads in (self.heads, self.kv_heads, self.kv_heads)]
        q, k, v = (
            part.view(rows, length, -1, self.head_width).transpose(1, 2) for part in self.qkv(x).split(sizes, dim=-1)
        )
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        grouped = self.heads != self.kv_heads
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        return self.out(y.transpose(1, 2).reshape(rows, length, -1))


def rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(x.dtype)


class FeedForward(nn.Module):
    def __init__(self, model: Any):
        super().__init__()
        bias = model.bias == "all"
        self.gated = model.feedforward == "swiglu"
        self.up = nn.Linear(model.width, model.feedforward_width * (2 if self.gated else 1), bias=bias)
        self.down = nn.Linear(model.feedforward_width, model.width, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        if self.gated:
            gate, x = x.chunk(2, dim=-1)
            return self.down(F.silu(gate) * x)
        return self.down(F.gelu(x, approximate="tanh"))


class Block(nn.Module):
    def __init__(self, model: Any):
        super().__init__()
        self.attention_norm, self.feedforward_norm = make_norm(model), make_norm(model)
        self.attention, self.feedforward = Attention(model), FeedForward(model)

    def forward(self, x: torch.Tensor, rotation: tuple | None) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), rotation)
        return x + self.feedforward(self.feedforward_norm(x))


def make_norm(model: Any) -> nn.Module:
    if model.norm == "layernorm":
        return nn.LayerNorm(model.width, eps=model.norm_epsilon)
    return nn.RMSNorm(model.width, eps=model.norm_epsilon)


class Decoder(nn.Module):
    """The decoder that a resolved `model` section of a config describes, with a tied head."""

    def __init__(self, model: Any):
        super().__init__()
        self.embedding = nn.Embedding(model.vocab_size, model.width)
        self.positions = nn.Embedding(model.max_positions, model.width) if model.position == "learned" else None
        self.blocks = nn.ModuleList(Block(model) for _ in range(model.num_layers))
        self.norm = make_norm(model)
        self.head_width, self.theta = model.head_width, model.rope_theta
        self.apply(initialize)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x, rotation = self.embedding(tokens), None
        if self.positions is None:
            rates = self.theta ** -(torch.arange(0, self.head_width, 2, device=tokens.device) / self.head_width)
            angles = places[:, None] * rates
            rotation = angles.cos(), angles.sin()
        else:
            x = x + self.positions(places)
        for block in self.blocks:
            x = block(x, rotation)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def training_steps(config: Any) -> tuple[Any, dict]:
    """Returns (steps, facts): `steps(n)` takes n training steps and waits for them; it is compiled and has run once."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    model = Decoder(config.model).to(device)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": config.optimizer.weight_decay}, {"params": others, "weight_decay": 0}]
    betas = config.optimizer.beta1, config.optimizer.beta2
    optimizer = torch.optim.AdamW(groups, lr=config.optimizer.learning_rate, betas=betas, fused=True)
    compiled = torch.compile(model)
    shape = config.training.batch_size, config.data.sequence_length + 1
    tokens = torch.randint(config.model.vocab_size, shape, device=device)

    def step() -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = compiled(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    def steps(number: int) -> float:
        for _ in range(number):
            loss = step()
        return loss.item()  # waits

    started = time.perf_counter()
    steps(1)
    facts = {
        "compile_seconds": time.perf_counter() - started,
        "parameters": sum(p.numel() for p in model.parameters()),
        "peak_bytes": lambda: torch.cuda.max_memory_allocated() if device == "cuda" else None,
    }
    return steps, facts
