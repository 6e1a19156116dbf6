"""Declares every field of a config: its type, its default, its allowed values and, in a comment, its meaning.

`gptjax.config.default`, the checks of `gptjax.config.validate` and `--help_config` are derived from these declarations.
Config files and flags set fields of a ConfigDict; a plan freezes it into `Settings`, which all other code reads.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from ml_collections import ConfigDict

from gptjax.settings.declarations import (
    Allowed,
    BelowOne,
    Count,
    Interval,
    Natural,
    NotNegative,
    OneOrOwn,
    OptionalInterval,
    OptionalSteps,
    Positive,
    Rule,
    Section,
    Seed,
    Steps,
    UpToOne,
    allowed_in,
    at_most,
    freeze_section,
)

FEEDFORWARDS = ("swiglu", "swiglu_clamped", "geglu", "geglu_exact", "gelu", "gelu_exact", "relu", "relu2")


@dataclasses.dataclass(frozen=True)
class ModelSettings(Section):
    # the kind of model (model/families.py)
    family: Annotated[str, OneOrOwn(("decoder", "encoder", "encoder_decoder", "classifier"))] = "decoder"
    body: Annotated[str, OneOrOwn(("encoder", "decoder"))] = "encoder"  # classifier: the family of the model below it
    num_classes: Natural = 0  # classifier: C, the number of classes; 0: the number of labels of data.path
    # classifier: the vector that the head reads: the mean over the text, or the vector of its last or first token (the
    # begin token, whose vector has seen no text in a decoder); auto: mean for an encoder, last for a decoder
    pooling: Literal["auto", "mean", "first", "last"] = "auto"
    vocab_size: Natural = 0  # V, the number of tokens that the model knows; 0: that of the tokenizer
    num_layers: Annotated[Count, at_most(10_000)] = 6  # L, the number of layers
    num_encoder_layers: Natural = 0  # encoder_decoder: layers of the encoder; 0: num_layers
    source_vocab_size: Natural = 0  # encoder_decoder: size of the sources' vocabulary; 0: that of their tokenizer
    max_source_positions: Natural = 0  # encoder_decoder: tokens of the longest source; 0: data.source_length
    shared_embeddings: bool = True  # encoder_decoder: sources and targets use one table
    width: Count = 384  # D, width of the residual stream; a multiple of num_heads unless head_width is set
    num_heads: Count = 6  # N, attention heads per layer
    num_kv_heads: Natural = 0  # K, heads of keys and values; 0: num_heads, 1: multi-query, between: grouped-query
    head_width: Natural = 0  # H, width of a head; 0: width / num_heads
    # the activation of the feed-forward layer (model/feedforward.py); names with 'glu' are gated
    feedforward: Annotated[str, OneOrOwn(FEEDFORWARDS)] = "swiglu"
    feedforward_width: Natural = 0  # F, hidden width; 0: 4 D, or 8/3 D rounded up to a multiple of 64 if gated
    num_experts: Natural = 0  # E, feed-forward layers of which each token uses some; 0: one layer for all tokens
    first_dense_layers: Natural = 0  # with experts: how many of the first layers have none (DeepSeek-V3: 3)
    first_dense_width: Natural = 0  # F of these layers; 0: that of a model without experts
    experts_per_token: Count = 2  # k, the number of experts that a token uses
    shared_experts: Natural = 0  # the number of further experts, which every token uses
    router_scores: Literal["softmax", "sigmoid"] = "softmax"  # how the router's logits become scores of experts
    router_normalized: bool = False  # scale the scores of the experts that a token uses so that they sum to one
    router_scale: Positive = 1.0  # factor for the scores of the experts that a token uses
    router_bias: bool = False  # balance the choices by a bias per expert that has no gradient (DeepSeek-V3)
    # maximum number of tokens of a row that an expert takes, as a multiple of the mean; later ones are dropped; 0: no
    # limit
    expert_capacity: NotNegative = 0.0
    # how rows are multiplied with their experts' matrices (model/grouped_products.py)
    expert_products: Literal["auto", "loop", "gathered", "ragged"] = "auto"
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"  # the kind of norm
    norm_epsilon: Positive = 1e-5  # added to the variance (rmsnorm: to the mean square)
    # what is normalized: the input of each sub-layer (pre), its output (post), both (sandwich), or the residual stream
    # after each sub-layer (post_residual: the original Transformer)
    norm_placement: Literal["pre", "post", "sandwich", "post_residual"] = "pre"
    parallel_residual: bool = False  # attention and feed-forward both read a block's input
    embedding_multiplier: Positive = 1.0  # factor for token embeddings (Gemma: the square root of width)
    residual_multiplier: Positive = 1.0  # factor for what a sub-layer adds to the residual stream (Granite)
    logit_multiplier: Positive = 1.0  # factor for logits, before their soft cap (Granite)
    position: Literal["rope", "learned", "sinusoidal", "alibi", "none"] = "rope"  # how positions enter the model
    max_positions: Natural = 0  # tokens of the longest context; 0: data.sequence_length
    rope_theta: Positive = 10_000.0  # base of the wavelengths of rotary positions
    rope_local_theta: NotNegative = 0.0  # rope_theta of layers marked S, which are not stretched; 0: rope_theta
    rope_fraction: Annotated[Positive, at_most(1)] = 1.0  # share of a head's features that is rotated
    # how rotary positions are stretched from the original context to a longer one
    rope_scaling: Literal["none", "linear", "llama3", "yarn", "longrope"] = "none"
    rope_factor: Positive = 1.0  # factor by which the original context is stretched
    rope_low_frequency_factor: Positive = 1.0  # llama3, yarn: wavelengths above (original context / this) are stretched
    rope_high_frequency_factor: Positive = 4.0  # wavelengths below (original context / this) are not; yarn: usually 32
    rope_original_positions: Count = 8192  # llama3, yarn, longrope: length of the original context, before stretching
    rope_feature_factors: tuple[float, ...] = ()  # longrope: divisors of the frequencies, one per rotated pair
    rope_attention_factor: NotNegative = 0.0  # yarn, longrope: factor for cosines and sines; 0: the published formula
    rope_truncate: bool = True  # yarn: round the bounds between kept and stretched features to whole numbers
    qk_norm: bool = False  # normalize queries and keys
    qk_norm_over: Literal["head", "projection"] = "head"  # normalize each head separately, or all heads together
    attention_scale: NotNegative = 0.0  # factor for products of queries and keys; 0: 1 / sqrt(head width)
    attention_softcap: NotNegative = 0.0  # squashes attention's logits to within ±this (not with cudnn); 0: off
    attention_sinks: bool = False  # an additional key per head, with a learned logit and no value (not with cudnn)
    window: Natural = 0  # keys that a token sees in a sliding-window layer, including its own; 0: no such layers
    window_pattern: str = "L"  # repeated over the layers; S: sliding window, L: full context, N: full, without rope
    bias: str = "none"  # none | all | where biases are added: qkv, output, feedforward, norm, joined by '+'
    tied_embeddings: bool = True  # the output layer uses the matrix of the token embedding
    logit_softcap: NotNegative = 0.0  # squashes the logits to within ±this; 0: off
    dropout: BelowOne = 0.0  # fraction of embeddings and residual branches set to zero in training
    attention_dropout: BelowOne = 0.0  # fraction of attention probabilities set to zero in training (not with cudnn)
    # initial values of matrices; residual_scaled: smaller at the end of each residual branch; zero: zero there
    initialization: Literal["normal", "residual_scaled", "zero"] = "residual_scaled"
    initialization_std: Positive = 0.02  # standard deviation of initial weights
    embedding_std: NotNegative = 0.0  # standard deviation of the embedding at the start; 0: initialization_std
    head_std: NotNegative = 0.0  # standard deviation of a head that is not tied; 0: initialization_std
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # compute dtype (parameters are float32)
    # how blocks multiply matrices in training: numbers of that type, or rounded to 8-bit floats (model/float8.py)
    matmul: Literal["dtype", "fp8"] = "dtype"
    # scan: one compiled loop over the layers; unroll: each is compiled separately, and with mesh.fsdp, gathered weights
    # are then kept until the backward pass if remat is none; auto: unroll up to 32 layers, if at most 2 GiB are kept so
    layers: Literal["auto", "scan", "unroll"] = "auto"
    # recompute activations to save memory: all except matrix products and attention (dots), except attention, or all
    # (full); offload_dots, offload_inputs: as dots and full, with what is kept in the host's memory
    remat: Literal["none", "dots", "attention", "full", "offload_dots", "offload_inputs"] = "none"
    # how attention is computed (model/attention_backends.py); auto: cudnn if it can run, else xla
    attention: Literal["auto", "reference", "xla", "cudnn"] = "auto"
    # low-rank adapters that are trained while the model is frozen (model/lora.py): r, their rank; 0: none
    lora_rank: Natural = 0
    lora_alpha: Positive = 16.0  # an adapter's output is multiplied by this / lora_rank
    lora_rslora: bool = False  # by this / sqrt(lora_rank) instead
    lora_dora: bool = False  # also train the length of each column of the adapted matrices (DoRA)
    lora_dropout: BelowOne = 0.0  # fraction of an adapter's inputs set to zero in training
    # regex on the paths of the adapted matrices; "": all linear layers of blocks but routed experts'; ".*": those, too
    lora_target: str = ""
    lora_also: str = ""  # regex on the paths of parameters that are trained whole; a classifier's head always is
    # how frozen matrices are stored; with int8, embedding and head are bfloat16; experts are always float32
    lora_base: Literal["float32", "bfloat16", "int8"] = "float32"
    # query rows per block of the xla backend; 0: 512 on GPU; on CPU 64, and 32 for more than 2,048 tokens
    attention_block: Natural = 0


@dataclasses.dataclass(frozen=True)
class DataSettings(Section):
    path: str = ""  # prepared folder(s): "data/books" or "data/web=0.7,data/code=0.3"
    sequence_length: Count = 256  # T, tokens in a row of a batch
    source_length: Natural = 0  # S, tokens in a row of sources, if the model reads pairs; 0: sequence_length
    # contiguous: rows are cut from the stream of documents; packed: a row holds whole documents, which do not see each
    # other
    windows: Literal["contiguous", "packed"] = "contiguous"
    # conversations: predict what the assistant wrote, or every token
    loss_on: Literal["assistant", "all"] = "assistant"
    # conversations of more than sequence_length tokens: truncate (leave out the end) or skip
    too_long: Literal["truncate", "skip"] = "truncate"
    workers: Annotated[Natural, at_most(1024)] = 0  # processes that load data; batches are the same for any number
    prefetch: Annotated[Natural, at_most(10_000)] = 2  # batches that are put on the device in advance
    verify: bool = True  # check the hash of each token file, once per machine until its size or time changes


@dataclasses.dataclass(frozen=True)
class OptimizerSettings(Section):
    # the method that updates the parameters (training/optimizers/optimizer.py)
    name: Annotated[str, OneOrOwn(("adamw", "muon", "lion", "adafactor", "sgd"))] = "adamw"
    learning_rate: Positive = 1e-3  # the highest rate of the schedule
    weight_decay: NotNegative = 0.1  # decoupled, for matrices and embeddings; norms and biases do not decay
    beta1: BelowOne = 0.9  # adamw: decay of the first moment; lion: weight of the momentum in an update
    beta2: BelowOne = 0.95  # adamw: decay of the second moment; lion: decay of the momentum
    epsilon: Positive = 1e-8  # adamw: added to the square root of the second moment
    momentum: BelowOne = 0.95  # muon, sgd: decay of the momentum
    muon_learning_rate: Positive = 0.02  # muon: the rate for its matrices; AdamW updates the rest with learning_rate
    gradient_clip: NotNegative = 1.0  # largest global norm of the gradient; 0: off
    # how first moments (and momentum) and second moments are stored (training/optimizers/moments.py)
    first_moment_dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    second_moment_dtype: Literal["float32", "bfloat16", "int8"] = "float32"  # of AdamW
    memory: Literal["device", "host"] = "device"  # where the optimizer's state is kept between two updates
    # (regex on the parameter path, learning_rate | weight_decay | freeze, factor or bool), …; 'layers/3/.*' is layer 3,
    # 'layers/-1/.*' the last one
    rules: tuple[Rule, ...] = ()


@dataclasses.dataclass(frozen=True)
class ScheduleSettings(Section):
    # the learning rate after the warm-up (training/optimizers/schedule.py)
    name: Annotated[str, OneOrOwn(("cosine", "wsd", "linear", "constant", "inverse_sqrt"))] = "cosine"
    warmup: Steps = "5%"  # length of the warm-up, as a share of the run or in steps or tokens
    decay: Steps = "20%"  # wsd: length of the final decay, as a share of the run or in steps or tokens
    final_fraction: UpToOne = 0.1  # the last learning rate, as a fraction of the highest


OBJECTIVES = (
    *("next_token", "completion", "seq2seq", "masked", "classification", "instruction", "distillation"),
    *("preference", "grpo", "on_policy_distillation"),
)


@dataclasses.dataclass(frozen=True)
class TrainingSettings(Section):
    # what is optimized (training/objectives)
    objective: Annotated[str, OneOrOwn(OBJECTIVES)] = "next_token"
    mask_fraction: Annotated[Positive, at_most(1)] = 0.15  # masked: share of a text's tokens that are hidden
    # masked: bert replaces 80 % of the hidden tokens by the mask, 10 % by any token, and keeps 10 %; plain replaces all
    # by the mask
    mask_kind: Literal["bert", "plain"] = "bert"
    duration: Interval = "2000 steps"  # length of the run: "2000 steps", "300M tokens" or "2 epochs"
    batch_size: Count = 32  # sequences per optimizer step, over all devices
    gradient_accumulation_steps: Count = 1  # micro-batches per batch, computed one after another
    # sequences that each device computes at once, which decides gradient_accumulation_steps; auto: as many as fit, with
    # more of model.remat where that is faster than fewer sequences; "": batch_size / gradient_accumulation_steps
    batch_per_device: str = ""
    loss_chunk: Natural = 0  # tokens per device whose logits are in memory at once; 0: all
    # share of each target's probability that is spread over all tokens, or over all labels, in training; preference:
    # assumed share of preferences that are the wrong way round
    label_smoothing: BelowOne = 0.0
    # classification: the weights of labels in the training loss: 'spam=6.5,ham=1' (others have 1), or balanced:
    # inversely proportional to their numbers of texts; "": all 1
    class_weights: str = ""
    z_loss: NotNegative = 0.0  # weight of the squared log of the softmax denominator; 0: off
    load_balance_loss: NotNegative = 0.01  # with experts: weight of the loss that balances them (training/routing.py)
    # whether load_balance_loss balances the choices of each row, or those of all rows together (one micro-batch only)
    load_balance_over: Literal["sequence", "batch"] = "sequence"
    router_z_loss: NotNegative = 0.001  # with experts: weight of the squared log of the router's softmax denominator
    router_bias_rate: NotNegative = 0.001  # model.router_bias: the change of the bias in a step
    ema_decay: BelowOne = 0.0  # decay per step of a moving average of parameters, to evaluate and sample; 0: off
    # what to do if the loss or the gradient is not finite; skip: drop the update
    on_nonfinite: Literal["stop", "skip"] = "stop"
    outlier_zscore: NotNegative = 0.0  # drop updates whose loss or gradient norm has a higher z-score; 0: never
    init_from: str = ""  # another run's workdir: start from its newest parameters (their moving average, if kept)
    group_size: Count = 8  # grpo, on_policy_distillation: G, texts that the model writes after each prompt
    # grpo, on_policy_distillation: the reward of a text (training/rewards.py)
    reward: Annotated[str, OneOrOwn(("exact", "final_number"))] = "exact"
    updates_per_rollout: Count = 1  # grpo: steps whose texts are written together, before the first of them
    clip_low: UpToOne = 0.2  # grpo: how far below 1 the ratio of a token's probabilities counts
    clip_high: NotNegative = 0.28  # grpo: how far above 1 it counts
    kl_weight: NotNegative = 0.0  # grpo: weight of the divergence from the reference; 0: off, without a reference
    teacher: str = ""  # both distillations: the workdir of the run whose newest model is the teacher
    reference: str = ""  # preference, grpo: the workdir of the run whose model is the reference; "": that of init_from
    # preference: compute the reference's log-probabilities once, before the first step, keep them in the run's folder,
    # and free the reference's memory
    reference_once: bool = False
    preference_loss: Literal["sigmoid", "ipo"] = "sigmoid"  # preference: the loss (training/objectives/preference.py)
    preference_beta: Positive = 0.1  # preference: how strongly the model is held to the reference
    distillation_weight: UpToOne = 0.9  # distillation: weight of the divergence; the text's own loss has the rest
    distillation_temperature: Positive = 1.0  # both distillations: divides the logits of teacher and student
    distillation_top_k: Natural = 0  # distillation: the teacher's likeliest tokens, and all others as one; 0: all
    profile: OptionalSteps = ""  # "100 steps": after 100 steps, record a profile of ten steps; "": none


@dataclasses.dataclass(frozen=True)
class MeshSettings(Section):
    data: int = -1  # devices that a batch is divided over; -1: all remaining devices
    fsdp: int = 1  # devices that a batch, the parameters and the optimizer state are divided over
    zero1: bool = False  # also divide the optimizer's state and its work over `data`, but not the parameters (ZeRO-1)
    tensor: int = 1  # devices that attention heads and feed-forward columns are divided over
    context: int = 1  # devices that each sequence is divided over; with fsdp, parameters are, too
    expert: int = 1  # devices that a batch and the experts of a mixture are divided over
    # how tokens are sent to divided experts (parallel/expert.py); auto: the way that sends fewer bytes
    expert_exchange: Literal["auto", "ring", "all_to_all"] = "auto"
    pipeline: int = 1  # devices that the layers are divided over, and a batch before and after them
    pipeline_microbatches: Natural = 0  # micro-batches that pass through the pipeline; 0: one for each of its stages
    # how attention works on divided sequences (parallel/context.py); auto: all_to_all if there are enough heads
    context_attention: Literal["auto", "all_to_all", "ring"] = "auto"
    # groups of layers on each stage; a micro-batch passes through the stages this many times
    pipeline_repeats: Count = 1


@dataclasses.dataclass(frozen=True)
class CheckpointSettings(Section):
    every: Interval = "500 steps"  # interval between saves, in steps, tokens, epochs or percent of the run
    keep_latest: Count = 2  # how many of the newest checkpoints to keep
    keep_best: Natural = 1  # how many checkpoints with the best validation score to keep
    keep_every: OptionalInterval = ""  # "10000 steps": keep every 10,000th step's checkpoint forever; "": none


@dataclasses.dataclass(frozen=True)
class EvaluationSettings(Section):
    every: OptionalInterval = "250 steps"  # interval between evaluations; "": never evaluate
    tokens: Natural = 163_840  # tokens of the validation split to score, chosen by a fixed seed; 0: all of it
    sample_every: OptionalInterval = ""  # "500 steps": how often to write a sample text into samples/; "": never
    sample_prompt: str = "\n"  # the text that a sample continues; "": start a new document
    sample_tokens: Natural = 128  # largest number of new tokens per sample
    tasks: str = ""  # tasks of each evaluation: cards in configs/tasks or paths of cards, separated by commas; "": none
    task_data: str = ""  # folders of the tasks' data, separated by commas; data.path is searched as well
    task_items: Natural = 200  # largest number of items per task, chosen by the card's seed; 0: all


@dataclasses.dataclass(frozen=True)
class LoggingSettings(Section):
    every: Interval = "10 steps"  # interval between lines on the console and rows of metrics.jsonl
    tensorboard: bool = True  # also write TensorBoard's files into the run's folder
    wandb: str = ""  # Weights & Biases project that also gets all metrics (needs 'gptjax[wandb]'); "": none
    plots: bool = True  # draw the losses into the folder plots/ of the run at the end


@dataclasses.dataclass(frozen=True)
class Settings(Section):
    """A whole config."""

    seed: Seed = 0  # for parameters, dropout and the order of the data
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    training: TrainingSettings = TrainingSettings()
    mesh: MeshSettings = MeshSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    logging: LoggingSettings = LoggingSettings()


def freeze(config: Mapping[str, Any] | ConfigDict | Settings) -> Settings:
    """Converts a complete config to settings. The values are not checked; `validate` does that."""
    return freeze_section(Settings, config)


@functools.cache
def allowed_values(kind: type[Section] = Settings) -> Mapping[str, Allowed]:
    """Returns dotted field → its allowed values, for all fields of `kind` in their order."""
    return types.MappingProxyType(dict(allowed_in(kind)))
