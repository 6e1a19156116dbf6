"""Evaluation: how good a model is on held-out data, on any text, and on tasks.

Held-out batches of a run, scored while it trains:

validation.py           one pass over the batches: sums on the device, scores at the end
perplexity.py           loss, perplexity and bits per byte; classification.py: accuracy, F1 and confusion
scores.py               a score's name, and which of two values is better

Texts and tasks, scored by `gptjax evaluate`:

requests.py             what an evaluation asks a model, and what it answers: the interface `Answerer` (start here)
answering.py            a trained model as an `Answerer`
loglikelihood.py        log-likelihoods in full rows, what texts share once; token_scores.py: those of given tokens
text.py                 perplexity of whole documents
tasks/                  questions with known answers; harness/: the same by the library lm_eval
results.py              results.json and tables
compare.py              several evaluated runs; paired.py: differences over the same items, with p-values
"""
