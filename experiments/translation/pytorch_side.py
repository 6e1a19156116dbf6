"""Trains PyTorch's `nn.Transformer` with the batches, steps, schedule and rates of configs/translation.py.

  python experiments/translation/pytorch_side.py --data=data/fra_eng --steps=400 --output=runs/pytorch

Trains, translates each source of the test split greedily, and prints a line of JSON: parameters, seconds, validation
loss, BLEU and chrF. The translations are written to --output. With --turns nothing is scored: for each number that it
reads it takes that many steps and prints their seconds (see speed.py). Needs PyTorch and sacrebleu.

The batches are gptjax's own, packed pairs, so that both sides learn from the same tokens in the same order. The model
is what `nn.Transformer` offers at this size: pre-norm, ReLU, LayerNorm, biases, sinusoidal positions, no dropout; one
embedding, scaled as in arXiv:1706.03762, serves both sides and the output. Matrices of the layers are trained by
`torch.optim.Muon` and all else by AdamW, with the config's rates, decay, clipping and label smoothing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from gptjax import tokenizer as tokenizers
from gptjax.config import Units
from gptjax.config.user_code import load_config
from gptjax.data import Dataset
from gptjax.evaluation.tasks.metrics import scores
from gptjax.settings import Settings, freeze
from gptjax.training.objectives import make_objective
from gptjax.training.optimizers.schedule import make_schedule

sys.path.insert(0, str(Path(__file__).parents[1]))
from sides import processor_seconds, take_turns

WRITTEN_AT_ONCE = 128  # sources
MOST_TOKENS = 128  # of a translation


def settings(data: str, steps: int) -> Settings:
    """The config with which the other side trains."""
    config = load_config("configs/translation.py")
    config.data.path, config.training.duration = data, f"{steps} steps"
    return freeze(config)


class Translator(nn.Module):
    """`nn.Transformer` between one embedding and its transpose, for rows of packed pairs."""

    def __init__(self, config: Settings, vocab_size: int):
        super().__init__()
        model, data = config.model, config.data
        self.heads = model.num_heads
        self.embedding = nn.Embedding(vocab_size, model.width)
        self.transformer = nn.Transformer(
            d_model=model.width,
            nhead=model.num_heads,
            num_encoder_layers=model.num_encoder_layers or model.num_layers,
            num_decoder_layers=model.num_layers,
            dim_feedforward=4 * model.width,
            dropout=0.0,
            batch_first=True,
            norm_first=True,
        )
        nn.init.normal_(self.embedding.weight, std=model.width**-0.5)
        longest = max(data.source_length, data.sequence_length, MOST_TOKENS)
        self.register_buffer("positions", sinusoids(longest, model.width))

    def embedded(self, tokens_BT: torch.Tensor, positions_BT: torch.Tensor) -> torch.Tensor:
        return self.embedding(tokens_BT) * math.sqrt(self.embedding.embedding_dim) + self.positions[positions_BT]

    def logits(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return x_BTD @ self.embedding.weight.T

    def unseen(self, segments_BT: torch.Tensor, segments_BS: torch.Tensor, *, causal: bool = False) -> torch.Tensor:
        """The mask of `nn.Transformer`, bool [B·N, T, S]: true for keys of another segment and, if causal, for later
        keys. Padding sees all keys, so that no softmax is empty; its losses have no weight.
        """
        unseen_BTS = (segments_BT[:, :, None] != segments_BS[:, None, :]) & (segments_BT[:, :, None] > 0)
        if causal:
            unseen_BTS = unseen_BTS | torch.ones(unseen_BTS.shape[1:], dtype=torch.bool).triu(1)
        return unseen_BTS.repeat_interleave(self.heads, 0)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits [B, T, V] of the targets of a batch (gptjax/data/pairs.py)."""
        segments_BS, segments_BT = batch["source_segments"], batch["segments"]
        x_BTD = self.transformer(
            self.embedded(batch["source"], batch["source_positions"]),
            self.embedded(batch["tokens"], batch["positions"]),
            src_mask=self.unseen(segments_BS, segments_BS),
            tgt_mask=self.unseen(segments_BT, segments_BT, causal=True),
            memory_mask=self.unseen(segments_BT, segments_BS),
        )
        return self.logits(x_BTD)

    @torch.no_grad()
    def write(self, sources: list[list[int]], begin_id: int, eos_id: int) -> list[list[int]]:
        """The greedy translation of each source, without its EOS. Without a cache, each step reads all tokens again."""
        length = max(map(len, sources))
        source_BS = torch.tensor([[*ids, *[0] * (length - len(ids))] for ids in sources])
        is_padding_BS = torch.arange(length) >= torch.tensor([[len(ids)] for ids in sources])
        memory_BSD = self.transformer.encoder(
            self.embedded(source_BS, torch.arange(length)[None]), src_key_padding_mask=is_padding_BS
        )
        target_BT = torch.full((len(sources), 1), begin_id)
        going = torch.arange(len(sources))
        for count in range(1, MOST_TOKENS + 1):
            x_BTD = self.transformer.decoder(
                self.embedded(target_BT[going], torch.arange(count)[None]),
                memory_BSD[going],
                tgt_mask=torch.ones(count, count, dtype=torch.bool).triu(1),
                memory_key_padding_mask=is_padding_BS[going],
            )
            next_B = torch.full((len(sources),), eos_id)
            next_B[going] = self.logits(x_BTD[:, -1]).argmax(-1)
            target_BT = torch.cat([target_BT, next_B[:, None]], dim=1)
            going = torch.nonzero(next_B != eos_id)[:, 0]
            if not len(going):
                break
        rows = (row[1:] for row in target_BT.tolist())
        return [row[: row.index(eos_id)] if eos_id in row else row for row in rows]


def sinusoids(length: int, width: int) -> torch.Tensor:
    """[T, D], arXiv:1706.03762 §3.5."""
    angles = torch.arange(length)[:, None] / 10_000 ** (torch.arange(0, width, 2)[None] / width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class Optimizers:
    """Muon for the matrices of the layers, AdamW for the rest, both following the config's schedule."""

    def __init__(self, model: Translator, config: Settings, total_steps: int):
        of = config.optimizer
        inside = dict(model.transformer.named_parameters())
        matrices = [parameter for parameter in inside.values() if parameter.dim() == 2]
        vectors = [parameter for parameter in inside.values() if parameter.dim() < 2]
        groups = [
            {"params": [model.embedding.weight], "weight_decay": of.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        adamw = torch.optim.AdamW(groups, lr=of.learning_rate, betas=(of.beta1, of.beta2), eps=of.epsilon, fused=True)
        muon = torch.optim.Muon(matrices, lr=of.muon_learning_rate, weight_decay=of.weight_decay, momentum=of.momentum)
        self._rates = {adamw: of.learning_rate, muon: of.muon_learning_rate}
        self._parameters, self._clip = list(model.parameters()), of.gradient_clip
        units = Units(tokens_per_step=1, total_steps=total_steps)
        schedule = make_schedule(config.schedule, 1.0, total_steps, lambda text: units.steps(text, "schedule"))
        self._factors = [float(schedule(step)) for step in range(total_steps)]

    def update(self, step: int) -> None:
        nn.utils.clip_grad_norm_(self._parameters, self._clip)
        for optimizer, rate in self._rates.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * self._factors[step]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


class Training:
    """A model in training: `steps(n)` takes n steps and returns the last loss."""

    def __init__(self, config: Settings, total_steps: int, compiled: bool):
        torch.manual_seed(config.seed)
        self.config = config
        self.data = make_objective(config).open_data("train", config.training.batch_size)
        self.model = Translator(config, self.data.vocab_size)
        self._forward = torch.compile(self.model) if compiled else self.model
        self._optimizers = Optimizers(self.model, config, total_steps)
        self.done = 0

    def steps(self, count: int) -> float:
        loss = torch.tensor(math.nan)
        for _ in range(count):
            batch = tensors(self.data.batch(self.done, np.arange(self.config.training.batch_size)))
            loss = loss_of(self._forward(batch), batch, self.config.training.label_smoothing)
            loss.backward()
            self._optimizers.update(self.done)
            self.done += 1
        return loss.item()

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Nats per target token over the whole validation split."""
        config, total, weight = self.config, 0.0, 0.0
        data = make_objective(config).open_data("validation", config.training.batch_size)
        for batch in map(tensors, data.batches(0, np.arange(config.training.batch_size))):
            here = batch["weights"].sum().item()
            total, weight = total + loss_of(self.model(batch), batch, 0.0).item() * here, weight + here
        return total / weight


def tensors(batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    made = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in batch.items()}
    return {name: values if values.is_floating_point() else values.long() for name, values in made.items()}


def loss_of(logits_BTV: torch.Tensor, batch: dict[str, torch.Tensor], label_smoothing: float) -> torch.Tensor:
    """The mean loss over the target tokens, in nats."""
    losses = functional.cross_entropy(
        logits_BTV.flatten(0, 1), batch["targets"].flatten(), label_smoothing=label_smoothing, reduction="none"
    )
    weights = batch["weights"].flatten()
    return (losses * weights).sum() / weights.sum()


def translations(model: Translator, data: Dataset, folder: str) -> Iterator[dict[str, Any]]:
    """The records of the held-out sources, translated in batches of similar length."""
    tokenizer = tokenizers.load(folder)
    items = [json.loads(line) for line in (Path(folder) / "test.pairs.jsonl").read_text().splitlines()]
    encoded = [[*tokenizer.encode(item["source"]), data.eos_id] for item in items]
    order = sorted(range(len(items)), key=lambda number: len(encoded[number]))
    for start in range(0, len(order), WRITTEN_AT_ONCE):
        chosen = order[start : start + WRITTEN_AT_ONCE]
        for number, ids in zip(chosen, model.write([encoded[k] for k in chosen], data.begin_id, data.eos_id)):
            item = items[number]
            yield {"source": item["source"], "text": tokenizer.decode(ids).strip(), "references": item["targets"]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--turns", action="store_true")
    parser.add_argument("--log_every", type=int, default=25)
    options = parser.parse_args()
    training = Training(settings(options.data, options.steps), options.steps, options.compile)
    facts = {
        "parameters": sum(parameter.numel() for parameter in training.model.parameters()),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "compiled": options.compile,
    }
    if options.turns:
        take_turns(training.steps, facts)
        return

    clock = time.perf_counter()
    while training.done < options.steps:
        loss = training.steps(min(options.log_every, options.steps - training.done))
        seconds = time.perf_counter() - clock
        print(f"step {training.done} loss {loss:.4f} after {seconds:.0f} s", file=sys.stderr, flush=True)
    facts |= {"steps": training.done, "seconds": seconds, "processor_seconds": processor_seconds()}
    facts["validation_loss"] = training.validation_loss()
    clock = time.perf_counter()
    records = list(translations(training.model.eval(), training.data, options.data))
    facts["seconds_of_writing"] = time.perf_counter() - clock
    facts |= scores(records, ["bleu", "chrf"])
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        with open(options.output / "translations.jsonl", "w") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (options.output / "results.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
