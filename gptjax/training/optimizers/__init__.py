"""How gradients become updates of the parameters, and which parameters are updated. Depends on nothing else here.

optimizer.py        from `config.optimizer` to an Optax transformation (start here)
schedule.py         the learning rate by step
treatments.py       how each parameter is updated, from its declaration and the config's rules
trained.py          which parameters have gradients; trained_layers.py: if only some layers of a stack have them
muon.py             Muon; adafactor.py: Adafactor; Optax has neither in this form
moments.py          the state of an optimizer in fewer bits
"""
