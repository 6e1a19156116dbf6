"""Generates text from trained parameters: prompts go in, texts come out.

Prompts that are known from the start, to read in this order:

generate.py             `Generator`: from prompts to completions (start here); timing.py: how long each part took
prompt_framing.py       the tokens that a model reads for a prompt; prompts.py: prompts from files and pipes
row_programs.py         a batch of prompts through the compiled programs; shapes.py: the few shapes that are compiled
decode.py               these programs: read prompts, then generate tokens in a loop; decode_state.py: what they update
sampling.py             from logits to one token per row; beam.py: beam search; speculation.py: several tokens per step
text.py                 from tokens to text, up to a stop string; completion.py: a text, also while it grows
devices.py              the devices that generate a text together

Requests that come at any time (the engine, on the same programs):

engine.py               `Engine`: submit, cancel, close (start here); engine_steps.py: what its thread does in a loop
request.py              a request as its caller sees it; sampling_params.py: its settings
waiting.py              the queue of requests; job.py: a request inside the engine
prompt_reading.py       reads prompts in pieces; prefix.py: keys and values of earlier prompts, which are not read again
batch.py                the rows that generate together; growing_text.py: the text of one row
request_sampling.py     settings of rows that only requests have: biases, penalties, alternatives
engine_programs.py      all programs, compiled before the first request; engine_metrics.py: what is counted and timed

What commands do with them:

chat.py                 a conversation that fits into the context; chat_terminal.py: what a person types in it
classify.py             labels of texts by a classifier
attention_map.py        which source tokens an encoder–decoder attends to, as a figure
"""
