"""Models in the folders of Hugging Face's transformers, written and read: config.json and safetensors.

families.py      the table of families, and which of them can express a run's model
llama.py …       a family each: its rules for config.json, and the names and layouts of its tensors
rules.py         config.json ⇄ the settings of `model`, declared once for both directions
equivalence.py   which settings mean the same function
tensors.py       their tensors ⇄ our parameters, declared once for both directions, also for slices
weights.py       the safetensors files of a folder
parity.py        compares logits with those of another program

Nothing here executes or unpickles anything that a folder holds.
"""
