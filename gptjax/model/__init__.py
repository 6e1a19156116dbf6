"""Models and their parts. Independent of meshes, files and optimizers.

To read in this order:

decoder.py              the GPT: a block, and a model of blocks; stack.py: how blocks run one after another
attention.py            the definition of attention, with masks and caches; attention_layer.py: its projections
feedforward.py, norm.py, position.py    the other parts of a block; initialization.py: first values of matrices
parameters.py           how a module declares a parameter; tree.py: the parameters' names
cache.py                keys and values of earlier tokens, for generation

Further models:

encoder.py, encoder_decoder.py, classifier.py    their blocks are the decoder's
families.py             every model by its name; family.py: their interface; decoder_family.py: the decoder's
resolve.py, checks.py   `auto` in the `model` section of a config, and what is refused there

Options, each in its own file:

attention_backends.py   less memory and time than the definition: blocks of rows (attention_plain.py, blocks.py), cuDNN
attention_scores.py     the softmax of attention; position_bias.py, softcap.py: what is added to its logits, and bounds
mixture_of_experts.py   experts in place of a feed-forward layer; grouped_products.py: their matrix products
lora.py                 low-rank adapters
dropout.py              a random key for each row
precision.py            the dtypes of matrix products; float8.py, int8.py: operands in eight bits
one_row.py              what a CPU multiplies faster for one text than for many
rematerialization.py    what is recomputed in the backward pass
placement.py            the places where the work can be divided over devices
flops.py                FLOPs per token
"""
