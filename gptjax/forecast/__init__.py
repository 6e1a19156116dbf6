"""Forecasts what a run needs and how long it takes, on devices that this machine need not have.

A plan (planning/) and devices go in; memory, time, price and loss come out. To read in this order:

hardware.py             devices by name: memory, links, power; devices.py: those of this machine or of a topology
step.py                 the needs of one step on each device: memory, kernels, messages (start here)
memory.py               its memory by content; liveness.py: arrays at the peak; product_buffers.py: what libraries add
kernels.py              its kernels with their work and bytes; parts.py: how many cores a kernel uses
program.py              a compiled program's text as instructions, which the last four files read
formula.py              the same needs without a compiler
duration.py             the time of a step, from its kernels and messages
run.py                  the whole run: time, energy, checkpoints, loss; price.py: the price of devices
table.py, picture.py    what `gptjax plan` prints and draws of it

What is decided by it:

fits.py                 whether a run fits, and the nearest one that does; room.py: how much of a device a step may take
micro_batch.py          `training.batch_per_device = auto`
layouts.py              how to train one model on given devices: mesh, micro-batch, rematerialization
search.py               which model a budget can train; candidates.py: sizes to try; choices.py: the result as a table
tuning.py               batch, learning rates and evaluations that fit the tokens of such a run

What is learned from runs that have ended:

outcomes.py             predictions and measurements of earlier runs, by which the next prediction is corrected
review.py               at the end of a run: what was predicted beside what came
"""
