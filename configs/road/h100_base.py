"""The base model of configs/road/h100.py: 166 M parameters on 3.3 B tokens, two to three hours on one H100.

14 layers of width 896, heads of 64, SwiGLU of width 2,432 and a vocabulary of 32,768. It is a small Qwen3, so that
transformers, vLLM and llama.cpp load what the road exports. GPT-2 124M has 12 layers of width 768. 3.3 B tokens are 20
per parameter (Hoffmann et al. 2022); Muon, the learning rates and the schedule are those of configs/depth.py:14, which
has the same width.
"""

from gptjax.config import default


def get_config():
    config = default()

    config.model.num_layers = 14
    config.model.width = 896
    config.model.num_heads = 14
    config.model.feedforward_width = 2432
    config.model.qk_norm = True
    config.model.initialization = "zero"

    config.data.sequence_length = 1024

    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-3 * (768 / 896) ** 0.5
    config.optimizer.muon_learning_rate = 0.02
    config.schedule.name = "wsd"
    config.schedule.warmup = "2%"
    config.schedule.decay = "40%"
    config.schedule.final_fraction = 0.0

    config.training.duration = "3.3B tokens"
    config.training.batch_size = 512
    config.training.gradient_accumulation_steps = 8
    config.training.loss_chunk = 8192

    config.checkpoint.every = "5%"
    config.evaluation.every = "5%"
    config.evaluation.tokens = 1 << 20
    config.evaluation.sample_every = "20%"
    config.evaluation.sample_prompt = "The capital of France is"
    return config
