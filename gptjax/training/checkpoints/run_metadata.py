"""A checkpoint's metadata about its run, and checks whether another config may continue the run."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptjax.config import ConfigError, default, flatten, get, to_json
from gptjax.config.named_functions import code_hash, is_named
from gptjax.display.differences import differences, with_lines
from gptjax.files.json_files import parsed
from gptjax.model.lora import FIELDS as ADAPTER_FIELDS
from gptjax.settings import Settings, allowed_values
from gptjax.training.checkpoints.vocabulary_growth import Growth

SOURCE_TOKENIZER = "source_tokenizer_hash"  # in a fingerprint, if the sources of pairs have their own tokenizer
BASE = "base.json"  # in the folder of a run with adapters: the model that they adapt
# These may name a user's function.
MAY_BE_OWN = tuple(field for field, allowed in allowed_values().items() if allowed.own)
MODEL_MAY_BE_OWN = tuple(field for field in MAY_BE_OWN if field.startswith("model."))
# These change how the model is computed, but not its function, so they may change when a run moves to another machine.
_EXECUTION = {
    *("model.dtype", "model.matmul", "model.layers", "model.remat", "model.attention", "model.attention_block"),
}
# Other fields of the optimizer may change, unless they change its arrays, which restoring detects.
_FIXED = {
    *("seed", "optimizer.name", "optimizer.first_moment_dtype", "optimizer.second_moment_dtype", "optimizer.rules"),
}
# May change, but not from or to 0: the average of the earlier steps would be missing.
_SWITCHES = {"training.ema_decay"}
_ADAPTERS = tuple(f"model.lora_{field}" for field in ADAPTER_FIELDS)
# These do not affect what is computed; data is compared by its fingerprint.
_HARMLESS = ("checkpoint.", "data.", "evaluation.", "logging.", "mesh.", "optimizer.memory")


def run_metadata(config: Settings, fingerprint: Mapping, tokens: int) -> dict:
    """The JSON values saved with the arrays, which suffice to identify their origin and to reproduce them.

    Args:
      config: the resolved config.
      fingerprint: the training data's `Dataset.fingerprint()`.
      tokens: number of tokens trained on so far.
    """
    return {
        "config": json.loads(to_json(config)),
        "fingerprint": _json_values(dict(fingerprint)),
        "tokens": int(tokens),
        "versions": {name: version(name) for name in ("gptjax", "jax", "flax", "optax", "orbax-checkpoint")},
        "git_revision": git_revision(),
        "own_code": own_code(config),
    }


def own_code(config: Settings, fields: Sequence[str] = MAY_BE_OWN) -> dict[str, str]:
    """'module:function' → hash of its file, for every function that these fields name and this process imported."""
    names = [name for field in fields if is_named(name := get(config, field))]
    return {name: found for name in names if (found := code_hash(name)) is not None}


def code_changes(saved: Mapping, config: Settings, fields: Sequence[str] = MAY_BE_OWN) -> list[str]:
    """Describes the user's functions that have changed since the checkpoint of `saved`.

    Checkpoints of older versions do not record them.
    """
    saved_code = saved.get("own_code", {})
    return [
        f"the code of {name}, since step {saved['step']} (hash of its file: {saved_code[name]} → {code})"
        for name, code in own_code(config, fields).items()
        if saved_code.get(name, code) != code
    ]


def check_compatible(saved: Mapping, config: Settings, fingerprint: Mapping) -> list[str]:
    """Checks that the run of `saved` may continue with this config and this data.

    Returns:
      The allowed changes that affect the following steps ("training.duration: 60 steps → 90 steps"), to be shown. A
      changed function of the user is one of them, since it may have been fixed.

    Raises:
      ConfigError: model, dataset, tokenizer, seed or the kind of optimizer changed; the message names each with both
        values.
    """
    now = _json_values(dict(fingerprint))
    if SOURCE_TOKENIZER not in saved["fingerprint"]:  # checkpoints of older versions do not record it
        now.pop(SOURCE_TOKENIZER, None)
    refused = differences(saved["fingerprint"], now, "data: ")
    noted = []
    for field, (before, now) in _config_differences(saved, config).items():
        switched = field in _SWITCHES and bool(before) != bool(now)
        if field in _FIXED or switched or _is_of_model(field):
            refused[field] = (before, now)
        elif not field.startswith(_HARMLESS):
            noted.append(f"{field}: {_show(before)} → {_show(now)}")
    noted += code_changes(saved, config)
    if refused:
        sentence = (
            f"the checkpoint of step {saved['step']} belongs to another run: use a new --workdir, and set "
            "training.init_from to start it from the parameters of this run"
        )
        raise ConfigError(with_lines(sentence, refused))
    return noted


def check_warm_start(saved: Mapping, config: Settings, tokenizer_hash: str, growth: Growth | None = None) -> list[str]:
    """Checks that a run may begin with the parameters of `saved` (`training.init_from`).

    Args:
      tokenizer_hash: the hash of the tokenizer of the new run's data.
      growth: the control tokens that this tokenizer has in addition to the other's, if they differ only in these.

    Returns:
      New control tokens, and changed settings under which the same parameters compute a different function, to be
      shown: "model.rope_theta: 10000.0 in the checkpoint, 5.0 in this run". Shapes that do not fit are found when the
      arrays are read.

    Raises:
      ConfigError: the tokenizers differ, or the models' widths or numbers of layers; the message names both.
    """
    source = f"training.init_from = {config.training.init_from}"
    if growth is None:
        check_tokenizer(saved, tokenizer_hash, source)
    adapters = {field: both for field, both in _config_differences(saved, config).items() if field in _ADAPTERS}
    if has_adapters_of(saved) and adapters:
        sentence = (
            f"{source}: that run has adapters, so it can only start a run with the same adapters; `gptjax adapter "
            "--merge` makes a run without adapters of it"
        )
        raise ConfigError(with_lines(sentence, adapters))
    for field in ("width", "num_layers"):
        before, now = saved["config"]["model"].get(field), getattr(config.model, field)
        if before is not None and before != now:
            raise ConfigError(
                f"model.{field} = {now}: must be {before}, as in {source}; a config that takes the model of a run, "
                "such as configs/instructions.py:RUN, sets all fields of the model"
            )
    of_head: tuple[str, ...] = ()
    if starts_body(saved, config):
        if (family := _family_of(saved)) != config.model.body:
            raise ConfigError(
                f"{source}: a run of model.family = {family!r} cannot start a classifier of model.body = "
                f"{config.model.body!r}"
            )
        of_head = ("model.family", "model.body", "model.num_classes", "model.pooling")
    told = (*of_head, *_ADAPTERS, "model.vocab_size") if growth else (*of_head, *_ADAPTERS)
    notes = [growth.note()] if growth else []
    for field, (before, now) in _config_differences(saved, config).items():
        if _is_of_model(field) and field not in told:
            notes.append(f"{field}: {_show(before)} in the checkpoint, {_show(now)} in this run")
    return notes + code_changes(saved, config, MODEL_MAY_BE_OWN)


def starts_body(saved: Mapping, config: Settings) -> bool:
    """Whether the parameters of the run of `saved` can only be used for a classifier's body, and not for its head."""
    return config.model.family == "classifier" != _family_of(saved)


def has_adapters_of(saved: Mapping) -> bool:
    """Whether the run of `saved` has adapters (model/lora.py)."""
    return bool(saved["config"]["model"].get("lora_rank", 0))


def base_of_run(workdir: str | Path) -> dict[str, Any]:
    """What a run with adapters recorded of the model that they adapt: the folder of its run, its step, and its hash
    (`hash_of_params`); empty if it recorded nothing."""
    path = Path(workdir) / BASE
    return parsed(path.read_bytes(), str(path), "delete it") if path.exists() else {}


def _family_of(saved: Mapping) -> str:
    return saved["config"]["model"].get("family", default().model.family)


def check_tokenizer(saved: Mapping, tokenizer_hash: str, source: str) -> None:
    """Raises ConfigError, whose message begins with `source`, unless the tokenizer is that of the run of `saved`."""
    expected = saved["fingerprint"]["tokenizer_hash"]
    if tokenizer_hash != expected:
        raise ConfigError(
            f"{source}: the tokenizer has hash {tokenizer_hash}, but must have hash {expected}, as the checkpoint of "
            f"step {saved['step']} was trained with"
        )


def check_source_tokenizer(saved: Mapping, tokenizer_hash: str | None, source: str) -> None:
    """Raises ConfigError, whose message begins with `source`, unless the tokenizer of the sources of pairs is that of
    the run of `saved`. Checkpoints of older versions do not record it.

    tokenizer_hash: None: there is none, since sources and targets have the same.
    """
    expected = saved["fingerprint"].get(SOURCE_TOKENIZER)
    if expected is not None and tokenizer_hash != expected:
        found = "is missing" if tokenizer_hash is None else f"has hash {tokenizer_hash}"
        raise ConfigError(
            f"{source}: the tokenizer of sources {found}, but must have hash {expected}, as the checkpoint of step "
            f"{saved['step']} was trained with"
        )


def check_same_model(saved: Mapping, config: Settings, source: str) -> None:
    """Raises ConfigError, whose message begins with `source`, unless the config's model is that of the run of
    `saved`."""
    lines = [
        f"{field} = {_show(now)}: must be {_show(before)}"
        for field, (before, now) in _config_differences(saved, config).items()
        if _is_of_model(field)
    ]
    if lines:
        raise ConfigError(f"{source}: {'; '.join(lines)}, as the checkpoint of step {saved['step']} was trained")


def _is_of_model(field: str) -> bool:
    """Whether the function that the parameters compute depends on the field."""
    return field.startswith("model.") and field not in _EXECUTION


def _config_differences(saved: Mapping, config: Settings) -> dict[str, tuple[Any, Any]]:
    """Dotted field → (before, now). A field that the checkpoint does not have counts as its default."""
    known = flatten(default())
    found = differences(saved["config"], json.loads(to_json(config)))
    found = {field: (_json_values(known.get(field)) if a is None else a, b) for field, (a, b) in found.items()}
    return {field: (before, now) for field, (before, now) in found.items() if before != now}


def _json_values(tree: Any) -> Any:
    """The tree as a JSON file stores it: tuples become lists."""
    return json.loads(json.dumps(tree))


def _show(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


@functools.cache  # cached, since every save needs it
def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # gptjax runs from its sources


@functools.cache
def git_revision(package: Path = Path(__file__).parents[2]) -> str | None:
    """The commit of the package's files, with '-dirty' (as in git describe) if they differ from it.

    None if no repository tracks them: a package installed inside another repository is not part of its code.
    """

    def git(*command: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package), *command],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            env=environment,
        )
        return done.stdout.strip()

    # git hooks set variables that name their own repository
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
