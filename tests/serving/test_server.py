"""A server on a real socket: the official client of OpenAI, Prometheus's parser, and clients that behave badly."""

import concurrent.futures
import contextlib
import json
import signal
import socket
import time
import urllib.request
from urllib.parse import urlsplit

import jax
import numpy as np
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from random_models import make_model
from served_models import Speaker, make_served, running

from gptjax.conversation import Message
from gptjax.inference.generate import Generator
from gptjax.serving.responses import CompletionPieces


@pytest.fixture(scope="module")
def served():
    made = make_served()
    yield made
    made.engine.close(drain=False)


@pytest.fixture(scope="module")
def address(served):
    with running(served, body_bytes=100_000, choices=8, patience=2.0) as (address, _):
        yield address


@pytest.fixture(scope="module")
def client(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def alone(served, prompt, n=1, **options):
    """What `Generator` writes for the prompt by itself."""
    seeds = {"seeds": options.pop("seed", 0)}
    made = served.generator.generate(
        [prompt], num_samples=n, max_new_tokens=options.pop("max_tokens", 8), **seeds, **options
    )
    return made[0] if n == 1 else made


def test_models_are_listed_and_found_by_name(client):
    (model,) = client.models.list().data
    assert model.id == client.models.retrieve("tiny").id == "tiny" and model.max_model_len == 48
    with pytest.raises(openai.NotFoundError, match="The model `other` does not exist"):
        client.completions.create(model="other", prompt="a")


def test_a_completion_is_what_the_generator_writes_alone(client, served):
    wanted = alone(served, "abc", n=2, seed=5)
    answer = client.completions.create(model="tiny", prompt="abc", n=2, seed=5, max_tokens=8)
    assert [choice.text for choice in answer.choices] == [each.text for each in wanted]
    assert answer.usage.prompt_tokens == 4 and answer.usage.completion_tokens == sum(len(x.tokens) for x in wanted)
    ids = served.generator.tokenizer.encode("abc")
    several = client.completions.create(model="tiny", prompt=[ids, ids], seed=5, max_tokens=8)
    assert [choice.text for choice in several.choices] == [wanted[0].text] * 2


def test_echo_gives_the_log_probabilities_of_prompt_and_text(client, served):
    answer = client.completions.create(
        model="tiny", prompt="abc", max_tokens=3, temperature=0, echo=True, logprobs=2, extra_body={"ignore_eos": True}
    )
    (choice,) = answer.choices
    scores = choice.logprobs
    assert (
        choice.text.startswith("abc")
        and scores.tokens[:3] == ["a", "b", "c"]
        and scores.text_offset[:4] == [0, 1, 2, 3]
    )
    assert len(scores.tokens) == 6 and all(isinstance(x, float) for x in scores.token_logprobs)
    assert all(max(top.values()) == x for top, x in zip(scores.top_logprobs[3:], scores.token_logprobs[3:]))
    begin = served.generator.begin_id
    ids = [begin, *served.generator.tokenizer.encode("a")]
    by_ids = client.completions.create(model="tiny", prompt=ids, max_tokens=1, echo=True, logprobs=0)
    assert by_ids.choices[0].logprobs.token_logprobs[0] is None
    assert by_ids.choices[0].logprobs.token_logprobs[1] == pytest.approx(scores.token_logprobs[0], abs=1e-4)


def test_a_chat_reads_the_template_and_streams_the_same_text(client, served):
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]
    ids = served.renderer.prompt([Message("system", "S"), Message("user", "Hi")]).tolist()
    end = served.renderer.end_id
    wanted = alone(served, [served.generator.begin_id, *ids], seed=3, max_tokens=12)
    cut = wanted.tokens.index(end) if end in wanted.tokens else len(wanted.tokens)
    options = dict(model="tiny", messages=messages, seed=3, max_completion_tokens=12)
    whole = client.chat.completions.create(**options)
    assert whole.choices[0].message.content == served.generator.tokenizer.decode(
        [token for token in wanted.tokens[:cut] if token != served.generator.end_id]
    )
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks[:-1]][-1] == whole.choices[0].finish_reason
    scored = client.chat.completions.create(**options, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert scored and all(len(each.top_logprobs) == 2 for each in scored)


def test_an_adapter_is_a_model_of_its_own_name(client, served):
    params, config = make_model()
    other = Generator(jax.tree.map(lambda x: np.roll(x, 1, -1), params), config, served.generator.tokenizer)
    served.engine.add_adapter("poems", other)
    try:
        listed = {model.id: model for model in client.models.list().data}
        assert set(listed) == {"tiny", "poems"} and listed["poems"].parent == "tiny"
        text = client.completions.create(model="poems", prompt="abc", seed=5, max_tokens=8).choices[0].text
        assert text == other.generate(["abc"], seeds=5, max_new_tokens=8)[0].text
        assert text != client.completions.create(model="tiny", prompt="abc", seed=5, max_tokens=8).choices[0].text
    finally:
        served.engine.remove_adapter("poems")


def test_requests_at_the_same_time_get_the_texts_that_each_gets_alone(client, served):
    asked = [(f"text {number % 7}", number) for number in range(24)]
    wanted = [alone(served, prompt, seed=seed).text for prompt, seed in asked]

    def write(prompt, seed):
        stream = client.completions.create(model="tiny", prompt=prompt, seed=seed, max_tokens=8, stream=True)
        return "".join(chunk.choices[0].text for chunk in stream)

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert list(pool.map(write, *zip(*asked))) == wanted


def test_what_does_not_fit_is_refused_as_openai_words_it(client):
    with pytest.raises(openai.BadRequestError, match="maximum context length is 48 tokens") as caught:
        client.completions.create(model="tiny", prompt="x" * 60)
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "prompt"
    with pytest.raises(openai.BadRequestError, match="you requested 63 tokens"):
        client.completions.create(model="tiny", prompt="xy", max_tokens=60)
    with pytest.raises(openai.BadRequestError, match="assistant speaks first"):
        client.chat.completions.create(model="tiny", messages=[{"role": "assistant", "content": "x"}])
    with pytest.raises(openai.BadRequestError, match="token ids must be from 0"):
        client.completions.create(model="tiny", prompt=[10**9])
    for field, value in (("logit_bias", {"999999": 1}), ("stop_token_ids", [999999])):
        with pytest.raises(
            openai.BadRequestError, match=f"Invalid '{field}': {field} = 999999: must be below"
        ) as caught:
            client.completions.create(model="tiny", prompt="x", extra_body={field: value})
        assert caught.value.param == field


def test_the_token_that_ends_a_turn_does_not_count_among_a_clients_stop_tokens(client, served):
    ids = [token for token in range(17) if token != served.renderer.end_id]
    options = dict(model="tiny", messages=[{"role": "user", "content": "Hi"}], max_completion_tokens=3, seed=1)
    answer = client.chat.completions.create(**options, extra_body={"stop_token_ids": ids[:15]})
    assert answer.choices[0].finish_reason in ("stop", "length")
    with pytest.raises(openai.BadRequestError, match="maximum length 15"):
        client.chat.completions.create(**options, extra_body={"stop_token_ids": ids[:16]})


def test_metrics_are_prometheus_text_and_count_what_happened(address, client):
    def figures():
        text = urllib.request.urlopen(f"{address}/metrics").read().decode()
        return {
            (s.name, s.labels.get("path"), s.labels.get("status")): s.value
            for family in text_string_to_metric_families(text)
            for s in family.samples
        }

    before = figures()
    used = client.completions.create(model="tiny", prompt="ab", max_tokens=5, extra_body={"ignore_eos": True}).usage
    after = figures()
    key = ("gptjax_generated_tokens_total", None, None)
    assert after[key] - before[key] == used.completion_tokens == 5
    key = ("gptjax_http_requests_total", "/v1/completions", "200")
    assert after[key] - before.get(key, 0) == 1
    assert (
        after[("gptjax_proposed_tokens_total", None, None)] == 0 == after[("gptjax_accepted_tokens_total", None, None)]
    )
    assert after[("gptjax_up", None, None)] == 1 and ("process_resident_memory_bytes", None, None) in after


def raw(address, text, wait=20.0):
    """What the server answers to these bytes."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=wait) as connection:
        connection.sendall(text)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


def connected(address):
    parts = urlsplit(address)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def until(connection, text, count=1):
    """What is read until this text has come so many times."""
    answer = b""
    while answer.count(text) < count:
        piece = connection.recv(65536)
        assert piece, answer
        answer += piece
    return answer


def posted(body, path="/v1/completions", host="localhost", more=""):
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("request_bytes", "status", "words"),
    [
        (posted(b"{bad"), 400, b"could not parse the JSON"),
        (posted(b""), 400, b"no body"),
        (posted(b"x" * 200_000), 413, b"at most 100,000 bytes"),
        (posted(b"{}", path="/nowhere"), 404, b"Invalid URL (POST /nowhere)"),
        (b"GET /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405, b"Not allowed to GET"),
        (posted(b"{}", host="evil.example"), 403, b"does not name this machine"),
        (posted(b"{}", host="127.0.0.1.evil.example:80"), 403, b"does not name this machine"),
        (posted(b"{}", host="192.168.0.1"), 403, b"does not name this machine"),
        (posted(b"{bad", host="127.0.0.2:8000"), 400, b"could not parse the JSON"),
        (posted(b"{bad", host="[::1]:8000"), 400, b"could not parse the JSON"),
        (posted(b"{}", more="Origin: http://evil.example\r\n"), 403, b"may not call this server"),
        (posted(b"{}", more="Origin: http://[x\r\n"), 403, b"may not call this server"),
    ],
)
def test_a_bad_request_gets_its_status_and_a_sentence_in_json(address, request_bytes, status, words):
    head, _, body = raw(address, request_bytes).partition(b"\r\n\r\n")
    assert head.split()[1] == str(status).encode() and words in body
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_a_client_that_sends_half_a_request_is_cut_off(address):
    """Also if it is not the first of its connection, or if the answer did not wait for its body."""
    began = time.monotonic()
    get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    post = b"POST /%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    with contextlib.ExitStack() as stack:
        head, body, later, early = (stack.enter_context(connected(address)) for _ in range(4))
        head.sendall(get[:-2])
        body.sendall(post % b"v1/completions" + b"{")
        for connection, request, end, more in ((later, get, b'"ok"}', get[:-2]), (early, post % b"no", b"}}", b"{")):
            connection.sendall(request)
            until(connection, end)
            connection.sendall(more)
        assert b" 408 " in until(body, b"}}")
        assert head.recv(9) == later.recv(9) == early.recv(9) == b""
    assert time.monotonic() - began < 20


def test_requests_in_pieces_are_answered_on_one_connection(address):
    get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(address) as connection:
        for pieces in ([get], [get[:9], get[9:]], [get + get[:9], get[9:-1], get[-1:]]):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.05)
            until(connection, b'{"status":"ok"}', b"".join(pieces).count(b"GET"))


def test_a_client_that_hangs_up_within_its_body_is_no_error_of_the_server(address, caplog):
    def answered(status):
        page = urllib.request.urlopen(f"{address}/metrics", timeout=20).read().decode()
        samples = [s for family in text_string_to_metric_families(page) for s in family.samples]
        return sum(s.value for s in samples if s.name == "gptjax_http_requests_total" and s.labels["status"] == status)

    before, parts = {status: answered(status) for status in ("499", "500")}, urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(posted(b"{" * 90_000)[:-1000])
    deadline = time.monotonic() + 20
    while answered("499") == before["499"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert answered("499") == before["499"] + 1 and answered("500") == before["500"] and not caplog.records


def test_a_client_that_hangs_up_cancels_its_request(address, served):
    cancelled = served.engine.metrics.requests_finished["cancelled"]
    parts = urlsplit(address)
    body = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 40, "n": 8, "stream": True, "ignore_eos": True})
    for _ in range(10):
        connection = socket.create_connection((parts.hostname, parts.port))
        connection.sendall(posted(body.encode()))
        connection.recv(10)
        connection.close()
    deadline = time.monotonic() + 30
    while served.engine.metrics.requests_running + served.engine.metrics.requests_waiting:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert served.engine.metrics.requests_finished["cancelled"] > cancelled


def test_a_token_is_asked_of_every_route_that_writes(served):
    with running(served, token="secret") as (address, _):
        for key, message in (("wrong", "Incorrect API key"), ("secret", "")):
            client = openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)
            if message:
                with pytest.raises(openai.AuthenticationError, match=message):
                    client.models.list()
            else:
                assert client.models.list().data
        assert b" 401 " in raw(address, posted(b"{}"))
        assert urllib.request.urlopen(f"{address}/health").status == 200


def test_a_server_that_ends_lets_running_requests_finish(served):
    with running(served, grace=30.0) as (address, process):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        options = dict(model="tiny", prompt="a", max_tokens=40, stream=True, seed=1, extra_body={"ignore_eos": True})
        stream = iter(client.completions.create(**options))
        text = next(stream).choices[0].text
        process.should_exit = True
        assert text + "".join(chunk.choices[0].text for chunk in stream)
    with pytest.raises(openai.APIConnectionError):
        client.models.list()


@pytest.fixture
def endless():
    """A server's model whose texts end only when they are cancelled."""
    made = make_served(engine=Speaker)
    made.engine.slow = True
    return made


def test_nobody_without_a_token_adds_labels_to_the_metrics(endless):
    with running(endless, token="secret") as (address, process):
        for path in ("/made/up", "/made/up/2", "/v1/models/a", "/v1/models/b", "/tokenize", "/tokenize/"):
            assert b" 401 " in raw(address, posted(b"{}", path=path))
    page = process._server.counts.page().decode()
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    labels = {sample.labels["path"] for sample in samples if "path" in sample.labels}
    assert labels == {"other", "/v1/models/{name}", "/tokenize"}


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_server_itself_is_json_as_all_errors_are(endless, monkeypatch, caplog, stream):
    monkeypatch.setattr(CompletionPieces, "piece", None)
    with running(endless) as (address, _):
        answer = raw(address, posted(json.dumps({"model": "tiny", "prompt": "a", "stream": stream}).encode()))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == (b"200" if stream else b"500")  # a stream has begun
    assert (b"text/event-stream" if stream else b"application/json") in head
    error = json.loads(body[body.index(b'{"error"') : body.index(b"}}") + 2])["error"]
    assert error["code"] == "internal_error" and "not callable" in caplog.text


@pytest.mark.parametrize("how", ["the end of the grace time", "a second signal"])
def test_a_text_that_never_ends_is_cut_by(how, endless):
    is_second = how == "a second signal"
    with running(endless, grace=600.0 if is_second else 0.3) as (address, process):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        stream = iter(client.completions.create(model="tiny", prompt="a", max_tokens=40, stream=True))
        text = next(stream).choices[0].text
        began = time.monotonic()
        for _ in range(1 + is_second):
            process.handle_exit(signal.SIGINT, None)
        with pytest.raises(openai.APIError):
            text += "".join(chunk.choices[0].text for chunk in stream)
    assert text == "0123456789" and time.monotonic() - began < 30


def test_a_browser_may_call_from_the_origins_that_were_allowed_and_no_other(endless):
    endless.engine.slow = False
    with running(endless, origins=["https://friend.example"]) as (address, _):
        for origin, allowed in (("https://friend.example", True), ("https://evil.example", False)):
            asks = f"Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n"
            asks += "Access-Control-Request-Headers: authorization,content-type\r\n\r\n"
            head = raw(address, f"OPTIONS /v1/completions HTTP/1.1\r\nHost: localhost\r\n{asks}".encode()).lower()
            assert (f"access-control-allow-origin: {origin}".encode() in head) is allowed
            answer = raw(address, posted(b'{"model": "tiny", "prompt": "a"}', more=f"Origin: {origin}\r\n"))
            assert answer.split()[1] == (b"200" if allowed else b"403")
            assert (f"access-control-allow-origin: {origin}".encode() in answer.lower()) is allowed
