"""Serving a run over HTTP in the form of OpenAI's API: what a request may say, what is answered, and the chat page.

app.py         the routes, told in one place
requests.py    what each kind of request asks
fields.py      the fields of a body, checked; errors.py: how a mistake is answered
prompts.py     its prompts as token ids, within the limits
answers.py     a request's generations, from the engine's threads to the server's loop
responses.py   the JSON of answers; tokens.py: tokens as strings, with their places in the text
stream.py      the same in pieces, as server-sent events
guards.py      token, host, origin, size of the body: before a request is read
tokenizing.py  tokens of texts and texts of tokens, as clients ask for them
counting.py    what /metrics shows
models.py      what a server serves: a run, and adapters over it
process.py     the process around the application: sockets, signals, the end
page.py        the chat page and its policy
"""
