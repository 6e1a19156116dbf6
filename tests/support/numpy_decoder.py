"""The decoder as float64 NumPy loops over rows, heads and positions; the fast decoder must give equal results."""

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
    x = params["embedding"][tokens] * config.embedding_multiplier
    if config.position == "learned":
        x = x + params["positions"][positions]
    if config.position == "sinusoidal":
        half = config.width // 2
        waves = np.array([[p / 10000 ** (2 * i / config.width) for i in range(half)] for p in positions])
        x = x * math.sqrt(config.width) + np.concatenate([np.sin(waves), np.cos(waves)], axis=1)
    for index in range(config.num_layers):
        layer = _layer(params["layers"], index)
        mark = config.window_pattern[index % len(config.window_pattern)]
        read = x
        x = x + _branch(config, layer, "attention", read, segments, positions, mark)
        if not config.parallel_residual:
            read = x
        x = x + _branch(config, layer, "feedforward", read)
    logits = _norm(config, params["final_norm"], x) @ (
        params["embedding"].T if config.tied_embeddings else params["head"]
    )
    logits = logits * config.logit_multiplier
    cap = config.logit_softcap
    return cap * np.tanh(logits / cap) if cap else logits


def _branch(config, layer, name, x, *where):
    """What a branch adds to the stream; checks that norms have parameters exactly where the config places them."""
    placement = config.norm_placement
    assert (f"{name}_norm" in layer) == (placement != "post")
    assert (f"{name}_post_norm" in layer) == (placement != "pre")
    h = _norm(config, layer[f"{name}_norm"], x) if placement != "post" else x
    branch = _attention if name == "attention" else _feedforward
    h = branch(config, layer[name], h, *where)
    h = _norm(config, layer[f"{name}_post_norm"], h) if placement != "pre" else h
    return config.residual_multiplier * h


def _has_bias(config, part):
    return config.bias == "all" or part in config.bias.split("+")


def _norm(config, p, x):
    if config.norm == "rmsnorm":
        assert set(p) == {"scale"}
        return _rms(x, p["scale"], config.norm_epsilon)
    assert ("bias" in p) == _has_bias(config, "norm")
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + config.norm_epsilon) * p["scale"] + p.get("bias", 0.0)


def _rms(x, scale, epsilon):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * scale


def _attention(config, p, x, segments, positions, mark):
    assert ("query_bias" in p) == _has_bias(config, "qkv")
    assert ("output_bias" in p) == _has_bias(config, "output")
    window = config.window if mark == "S" and config.window else len(x)
    query, key, value = (
        np.einsum("td,dnh->tnh", x, p[name]) + p.get(f"{name}_bias", 0.0) for name in ("query", "key", "value")
    )
    if config.qk_norm:
        shape = (len(x), -1) if config.qk_norm_over == "projection" else (len(x), -1, config.head_width)
        query, key = (
            _rms(y.reshape(shape), p[name]["scale"].reshape(shape[2:] or -1), config.norm_epsilon).reshape(y.shape)
            for y, name in ((query, "query_norm"), (key, "key_norm"))
        )
    if config.position == "rope" and mark != "N":
        query, key = (
            np.stack([[_rope(config, head, position, mark) for head in token] for token, position in zip(y, positions)])
            for y in (query, key)
        )
    out = np.zeros_like(x)
    for n in range(config.num_heads):
        k = n // (config.num_heads // config.num_kv_heads)
        for t in range(len(x)):
            seen = [s for s in range(t + 1) if t - s < window and segments[s] == segments[t]]
            bias = [_alibi_slope(config, n) * (s - t) if config.position == "alibi" else 0.0 for s in seen]
            weights = np.exp([_score(config, query[t, n], key[s, k]) for s in seen] + np.array(bias))
            sink = math.exp(p["sinks"][n]) if config.attention_sinks else 0.0
            mixed = sum(w * value[s, k] for w, s in zip(weights, seen)) / (weights.sum() + sink)
            out[t] += mixed @ p["output"][n]
    return out + p.get("output_bias", 0.0)


def _score(config, query, key):
    score = query @ key * (config.attention_scale or 1 / math.sqrt(config.head_width))
    cap = config.attention_softcap
    return cap * math.tanh(score / cap) if cap else score


def _alibi_slope(config, n):
    power = 1
    while 2 * power <= config.num_heads:
        power *= 2
    return 2 ** (-8 / power * (n + 1)) if n < power else 2 ** (-4 / power * (2 * (n - power) + 1))


def _rope(config, x, position, mark):
    """Pair (i, i + R/2) of the first R features as a complex number, turned."""
    half = int(config.rope_fraction * config.head_width) // 2
    turned = x.copy()
    for i in range(half):
        frequency = _frequency(config, i / half, mark)
        z = complex(x[i], x[i + half]) * complex(math.cos(position * frequency), math.sin(position * frequency))
        z *= _amplitude(config) if not (mark == "S" and config.rope_local_theta) else 1.0
        turned[i], turned[i + half] = z.real, z.imag
    return turned


def _amplitude(config):
    if config.rope_scaling not in ("yarn", "longrope"):
        return 1.0
    if config.rope_attention_factor:
        return config.rope_attention_factor
    if config.rope_scaling == "yarn":
        return 0.1 * math.log(config.rope_factor) + 1
    return math.sqrt(1 + math.log(config.rope_factor) / math.log(config.rope_original_positions))


def _frequency(config, share, mark):
    if mark == "S" and config.rope_local_theta:
        return config.rope_local_theta**-share
    frequency = config.rope_theta**-share
    if config.rope_scaling == "longrope":
        half = len(config.rope_feature_factors)
        return frequency / config.rope_feature_factors[round(share * half)]
    if config.rope_scaling == "yarn":
        half = int(config.rope_fraction * config.head_width) // 2
        first, last = (
            half * math.log(config.rope_original_positions / (turns * 2 * math.pi)) / math.log(config.rope_theta)
            for turns in (config.rope_high_frequency_factor, config.rope_low_frequency_factor)
        )
        if config.rope_truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, 2 * half - 1)
        kept = 1 - min(max((share * half - first) / (last - first), 0), 1)
        return kept * frequency + (1 - kept) * frequency / config.rope_factor
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
        assert (f"{name}_bias" in p) == _has_bias(config, "feedforward")
        return y @ p[name] + p.get(f"{name}_bias", 0.0)

    def gelu(y):
        return 0.5 * y * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))

    def gelu_exact(y):
        return y * np.vectorize(lambda each: 0.5 * (1 + math.erf(each / math.sqrt(2))))(y)

    up = project("up", x)
    if config.feedforward in ("gelu", "gelu_exact", "relu2"):
        plain = {"gelu": gelu, "gelu_exact": gelu_exact, "relu2": lambda y: np.maximum(y, 0) ** 2}
        return project("down", plain[config.feedforward](up))
    if config.feedforward == "swiglu_clamped":
        gate, up = np.minimum(project("gate", x), 7), np.minimum(np.maximum(up, -7), 7)
        return project("down", gate / (1 + np.exp(-1.702 * gate)) * (1 + up))
    gated = {"swiglu": lambda y: y / (1 + np.exp(-y)), "geglu": gelu, "geglu_exact": gelu_exact}
    return project("down", gated[config.feedforward](project("gate", x)) * up)


def _layer(tree, index):
    return {k: _layer(v, index) if isinstance(v, dict) else v[index] for k, v in tree.items()}


def _float64(tree):
    return {k: _float64(v) if isinstance(v, dict) else np.asarray(v, np.float64) for k, v in tree.items()}
