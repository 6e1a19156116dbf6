"""The decoder once more, in float64 NumPy loops over rows, heads and positions: what the fast one must equal."""

import math

import numpy as np


def decode(config, params, tokens, segments=None, positions=None):
    """Logits [B, T, V]."""
    params = _float64(params)
    return np.stack(
        [
            _row(
                config,
                params,
                row,
                np.zeros(len(row), int) if segments is None else segments[index],
                np.arange(len(row)) if positions is None else positions[index],
            )
            for index, row in enumerate(tokens)
        ]
    )


def _row(config, params, tokens, segments, positions):
    x = params["embedding"][tokens]
    if config.position == "learned":
        x = x + params["positions"][positions]
    if config.position == "sinusoidal":
        half = config.width // 2
        waves = np.array([[p / 10000 ** (2 * i / config.width) for i in range(half)] for p in positions])
        x = x * math.sqrt(config.width) + np.concatenate([np.sin(waves), np.cos(waves)], axis=1)
    for index in range(config.num_layers):
        layer = _layer(params["layers"], index)
        letter = config.window_pattern[index % len(config.window_pattern)]
        window = config.window if letter == "S" and config.window else len(tokens)
        h = _norm(config, layer["attention_norm"], x)
        x = x + _attention(config, layer["attention"], h, segments, positions, window)
        x = x + _feedforward(config, layer["feedforward"], _norm(config, layer["feedforward_norm"], x))
    logits = _norm(config, params["final_norm"], x) @ (
        params["embedding"].T if config.tied_embeddings else params["head"]
    )
    cap = config.logit_softcap
    return cap * np.tanh(logits / cap) if cap else logits


def _norm(config, p, x):
    if config.norm == "rmsnorm":
        assert set(p) == {"scale"}
        return _rms(x, p["scale"], config.norm_epsilon)
    assert ("bias" in p) == (config.bias == "all")
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + config.norm_epsilon) * p["scale"] + p.get("bias", 0.0)


def _rms(x, scale, epsilon):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * scale


def _attention(config, p, x, segments, positions, window):
    assert ("query_bias" in p) == (config.bias in ("qkv", "all"))
    assert ("output_bias" in p) == (config.bias == "all")
    out = np.zeros_like(x)
    group = config.num_heads // config.num_kv_heads
    for n in range(config.num_heads):
        k = n // group
        query = x @ p["query"][:, n] + (p["query_bias"][n] if "query_bias" in p else 0.0)
        key = x @ p["key"][:, k] + (p["key_bias"][k] if "key_bias" in p else 0.0)
        value = x @ p["value"][:, k] + (p["value_bias"][k] if "value_bias" in p else 0.0)
        if config.qk_norm:
            query = _rms(query, p["query_norm"]["scale"], config.norm_epsilon)
            key = _rms(key, p["key_norm"]["scale"], config.norm_epsilon)
        if config.position == "rope":
            query = np.stack([_rope(config, q, position) for q, position in zip(query, positions)])
            key = np.stack([_rope(config, q, position) for q, position in zip(key, positions)])
        for t in range(len(x)):
            seen = [s for s in range(t + 1) if t - s < window and segments[s] == segments[t]]
            weights = np.exp([query[t] @ key[s] / math.sqrt(config.head_width) for s in seen])
            mixed = sum(w * value[s] for w, s in zip(weights, seen)) / weights.sum()
            out[t] += mixed @ p["output"][n]
    return out + p.get("output_bias", 0.0)


def _rope(config, x, position):
    """Pair (i, i + H/2) as a complex number, turned."""
    half = config.head_width // 2
    turned = np.empty_like(x)
    for i in range(half):
        frequency = _frequency(config, i)
        z = complex(x[i], x[i + half]) * complex(math.cos(position * frequency), math.sin(position * frequency))
        turned[i], turned[i + half] = z.real, z.imag
    return turned


def _frequency(config, i):
    frequency = config.rope_theta ** (-2 * i / config.head_width)
    if config.rope_scaling == "linear":
        return frequency / config.rope_factor
    if config.rope_scaling == "llama3":
        low_wavelength = config.rope_original_positions / config.rope_low_frequency_factor
        high_wavelength = config.rope_original_positions / config.rope_high_frequency_factor
        wavelength = 2 * math.pi / frequency
        if wavelength < high_wavelength:
            return frequency
        if wavelength > low_wavelength:
            return frequency / config.rope_factor
        smooth = (config.rope_original_positions / wavelength - config.rope_low_frequency_factor) / (
            config.rope_high_frequency_factor - config.rope_low_frequency_factor
        )
        return (1 - smooth) * frequency / config.rope_factor + smooth * frequency
    return frequency


def _feedforward(config, p, x):
    def project(name, y):
        assert (f"{name}_bias" in p) == (config.bias == "all")
        return y @ p[name] + p.get(f"{name}_bias", 0.0)

    def gelu(y):
        return 0.5 * y * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))

    up = project("up", x)
    if config.feedforward == "swiglu":
        gate = project("gate", x)
        hidden = gate / (1 + np.exp(-gate)) * up
    elif config.feedforward == "geglu":
        hidden = gelu(project("gate", x)) * up
    elif config.feedforward == "gelu":
        hidden = gelu(up)
    else:
        hidden = np.maximum(up, 0) ** 2
    return project("down", hidden)


def _layer(tree, index):
    return {k: _layer(v, index) if isinstance(v, dict) else v[index] for k, v in tree.items()}


def _float64(tree):
    return {k: _float64(v) if isinstance(v, dict) else np.asarray(v, np.float64) for k, v in tree.items()}
