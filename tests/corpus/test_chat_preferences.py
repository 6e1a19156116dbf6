"""Preferences in conversations, from raw rows to the rows of a batch: the renderer's tokens, and only answers count."""

import json

import numpy as np
import pytest
from conversation_folder import corpus_config
from pipeline_running import prepare
from source_reading import documents as read_all

from gptjax.config import ConfigError
from gptjax.conversation import Message, Renderer, load_template
from gptjax.corpus.config import source
from gptjax.corpus.forms import preference_in, shown
from gptjax.data.preferences import PreferenceRows
from gptjax.data.prepared import read_manifest
from gptjax.data.tokens import TokenSource
from gptjax.tokenizer import load


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


ASKED = [{"role": "system", "content": "Be kind."}, user("Hi"), assistant("Hello."), user("2+2?")]
ROWS = [
    {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
    {"prompt": ASKED, "chosen": [assistant("4")], "rejected": [assistant("I do not know. <|im_end|>")]},
    {"prompt": ASKED, "chosen": [*ASKED, assistant("4.")], "rejected": [*ASKED, assistant("5.")]},
    *(
        {"chosen": [user("Why?"), assistant("So.")], "rejected": [user("Why?"), assistant("No."), user("?"), last]}
        for last in (assistant(""), assistant("!"))
    ),
]
READ = [  # (prompt, chosen, rejected) of the rows that are preferences
    ([user("2+2?")], [assistant("4")], [assistant("5")]),
    (ASKED, [assistant("4")], [assistant("I do not know. <|im_end|>")]),
    (ASKED, [assistant("4.")], [assistant("5.")]),
    ([user("Why?")], [assistant("So.")], [assistant("No."), user("?"), assistant("!")]),
]


def messages(given):
    return [Message(**one) for one in given]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_messages_and_shared_beginnings_are_read_and_faults_are_counted_with_their_rows(tmp_path):
    bad = [{"prompt": "Hi", "chosen": "a", "rejected": "a"}, {"prompt": "Hi", "chosen": "a"}]
    bad += [{"prompt": [assistant("Hi")], "chosen": "a", "rejected": "b"}]
    bad += [{"prompt": "Hi", "chosen": [{"role": "gpt", "content": "a"}], "rejected": "b"}]
    found, skipped = read_all("chat_preferences", written(tmp_path / "a.jsonl", [*ROWS, *bad]))
    assert [preference_in(one.text) for one in found] == [[messages(side) for side in sides] for sides in READ]
    assert {reason: places[0].rpartition(":")[2] for reason, places in skipped.places.items()} == {
        "an empty completion": "4",
        "two equal answers": "6",
        "no column rejected": "7",
        "assistant speaks first": "8",
        "a role that is none of system, user, assistant, tool: 'gpt'": "9",
    }
    assert shown(found[0].text, "chat_preferences") == "user: 2+2?\n→ assistant: 4\n→ assistant: 5"
    _, skipped = read_all("preferences", written(tmp_path / "b.jsonl", ROWS))
    assert [places[0].rpartition(":")[2] for reason, places in skipped.places.items() if "--template" in reason] == [
        "2"
    ]
    with pytest.raises(ConfigError, match="no preference any more"):
        preference_in("user\x1eHi")


@pytest.mark.parametrize(
    "fields", [{"template": "chatml"}, {"template": "turns", "tokens.bos": True}, {"tokenizer.name": "char"}], ids=str
)
def test_rows_are_the_renderers_tokens_and_only_answers_have_a_weight(tmp_path, fields):
    file = written(tmp_path / "a.jsonl", ROWS)
    config = corpus_config(file, **fields, **{"split.validation_fraction": 0.0})
    config.sources = (source(name="rated", kind="chat_preferences", path=str(file)),)
    folder = tmp_path / "data"
    folder.mkdir()
    prepare(config, folder)
    manifest = read_manifest(folder)
    assert manifest["form"] == "chat_preferences" and manifest["splits"]["train"]["documents"] == 8
    assert "| train | 4 |" in (folder / "card.md").read_text()
    renderer = Renderer(load_template(fields.get("template", "chatml")), load(folder))
    stream = TokenSource(folder, "train")
    rows = PreferenceRows(stream, 300)
    batch = rows.gather(np.arange(len(rows)))

    wanted = {}
    for prompt, *answers in READ:
        texts = []
        for answer in answers:
            whole = renderer.render(messages([*prompt, *answer]))
            given = len(renderer.render(messages(prompt)).ids)  # what was said before has no loss
            texts.append((whole.ids.tolist(), (whole.supervised & (np.arange(len(whole.ids)) >= given)).tolist()))
        wanted[tuple(texts[0][0])] = texts
    longest = [max(len(ids) for ids, _ in texts) for texts in wanted.values()]
    assert PreferenceRows(stream, max(longest) - 1).left_out == longest.count(max(longest))
    for row in range(len(rows)):
        both = []
        for prefix in ("", "rejected_"):
            tokens, targets, weights = (batch[f"{prefix}{name}"][row] for name in ("tokens", "targets", "weights"))
            length = int(np.flatnonzero(targets)[-1]) + 1
            assert tokens[0] == stream.begin_id and (tokens[1:length] == targets[: length - 1]).all()
            assert not weights[length:].any() and not tokens[length:].any()
            both.append((targets[:length].tolist(), (weights[:length] > 0).tolist()))
        assert wanted.pop(tuple(both[0][0])) == both
        ((_, place, count),) = rows.spans(row)
        assert stream.take_runs(np.array([place]), np.array([count])).tolist() == both[0][0]
    assert not wanted
