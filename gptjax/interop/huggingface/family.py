"""What a family of models in transformers consists of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gptjax.config import ConfigError, default, validate
from gptjax.interop.huggingface.equivalence import differences_of
from gptjax.interop.huggingface.keys import Keys
from gptjax.interop.huggingface.rules import Rule
from gptjax.interop.huggingface.tensors import Constant, Tensor
from gptjax.model.families import family_named
from gptjax.settings import ModelSettings

# Keys of config.json that say nothing about the function, or that other parts of an export or import handle.
_ELSEWHERE = {
    *("architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "auto_map"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "use_cache", "initializer_range"),
    *("attention_dropout", "pretraining_tp", "is_encoder_decoder", "id2label", "label2id", "problem_type"),
    *("return_dict", "output_hidden_states", "output_attentions", "torchscript", "chunk_size_feed_forward"),
    *("gradient_checkpointing", "tie_encoder_decoder", "cross_attention_hidden_size", "add_cross_attention"),
    *(
        "finetuning_task",
        "is_decoder",
        "task_specific_params",
        "tokenizer_class",
        "prefix",
        "use_bfloat16",
        "unsloth_version",
    ),
    *("forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "max_length", "num_beams", "attn_implementation"),
    *("resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout", "attention_dropout", "hidden_dropout", "dropout_rate"),
    *(
        "router_aux_loss_coef",
        "output_router_logits",
        "router_jitter_noise",
        "classifier_dropout",
        "router_z_loss_coef",
    ),
}


UNWRITABLE = "config.json"  # among obstacles: what config.json would have to say, and may not


@dataclass(frozen=True)
class Family:
    """A family.

    Attributes:
      name: of `--family`.
      architecture: the class in transformers.
      model_type: of config.json.
      rules: config.json ⇄ our settings.
      layouts: settings → the tensors, for each layout that files of this family have; exports have the first.
      constants: settings → tensors that are no parameters.
      prefix: of the names of tensors, which files may leave out.
      aliases: name → the name of a tensor that it repeats, if the table of tokens is the output matrix, too.
      ignored: regex of the names of buffers that files may have.
      nested: (model, keys that the rules wrote → config.json; config.json → keys that the rules read), if the keys are
        not on its top level.
      further_layers: whether files may have layers after the last one, which predict further tokens.
      ours: the kind of our model.
    """

    name: str
    architecture: str
    model_type: str
    rules: tuple[Rule, ...]
    layouts: tuple[Callable[[ModelSettings], list[Tensor]], ...]
    constants: Callable[[ModelSettings], list[Constant]] = lambda model: []
    prefix: str = "model."
    aliases: Mapping[str, str] | None = None
    ignored: str = r".*rotary_emb\.inv_freq"
    nested: tuple[Callable[[ModelSettings, dict], dict], Callable[[Keys], Keys]] | None = None
    further_layers: bool = False
    ours: str = "decoder"

    def write(self, model: ModelSettings) -> dict[str, Any]:
        """config.json of a model, without what does not follow from the model; see `obstacles`."""
        content: dict[str, Any] = {"architectures": [self.architecture], "model_type": self.model_type}
        keys: dict[str, Any] = {}
        for rule in self.rules:
            keys |= rule.write(model)
        return content | (self.nested[0](model, keys) if self.nested else keys)

    def read(self, content: Mapping[str, Any], source: str = "config.json") -> tuple[ModelSettings, list[str]]:
        """The model's resolved settings, and in words what is to know: keys that were not read, and limits.

        Raises:
          ConfigError: a key is missing, or has a value that gptjax cannot express.
        """
        keys = Keys(content, source)
        if content.get("quantization_config"):
            raise keys.error("quantization_config", content["quantization_config"], "left out: load full weights")
        inner = self.nested[1](keys) if self.nested else keys
        values: dict[str, Any] = {"family": self.ours}
        for rule in self.rules:
            values |= rule.read(inner)
        config = default()
        config.model.update(values)
        try:
            validate(config)
            kind = family_named(self.ours)
            resolved = kind.resolve(config.model, platform="", vocab_size=1, sequence_length=1)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
        unread = sorted(inner.content.keys() - inner.read - _ELSEWHERE)
        told = [f"{key} = {json.dumps(inner.content[key])[:60]}" for key in unread]
        return resolved, [f"{source}: {each}" for each in (*inner.notes, *told)]

    def obstacles(self, model: ModelSettings) -> dict[str, tuple[Any, Any]]:
        """Setting → (its value, the value that this family can express) for all that stand in the way of an export.

        A config.json is written and read back, so that nothing that affects the function can be lost.
        """
        if model.family != self.ours:
            return {"family": (model.family, self.ours)}
        try:
            back, _ = self.read(self.write(model))
        except ConfigError as error:
            return {UNWRITABLE: (str(error).removeprefix("config.json: "), "")}
        return differences_of(model, back)

    def is_ignored(self, name: str, model: ModelSettings) -> bool:
        """Whether a tensor of this name is a buffer that means nothing, or of a layer that predicts further tokens."""
        layer = re.match(r"layers\.(\d+)\.", name.removeprefix(self.prefix))
        if self.further_layers and layer and int(layer[1]) >= model.num_layers:
            return True
        return re.fullmatch(self.ignored, name.removeprefix(self.prefix)) is not None
