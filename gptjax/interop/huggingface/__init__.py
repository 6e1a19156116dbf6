"""Models in the folders of Hugging Face's transformers, written and read: config.json and safetensors.

model_folder.py         a model as a folder, in both directions (start here)
families.py             the table of families, and which of them can express a run's model
family.py               what a family consists of; then the families themselves:
                        llama.py, gemma.py, gpt2.py, experts.py, marian.py
rules.py                config.json ⇄ the settings of `model`, declared once for both directions; rope.py: those of RoPE
keys.py                 the keys of a config.json, with types checked
tensors.py              their tensors ⇄ our parameters, declared once for both directions, also for slices
weights.py              the safetensors files of a folder
equivalence.py          which settings mean the same function
parity.py               compares logits with those of another program
programs.py             which programs compute an exported folder's function, and by which command

Nothing here executes or unpickles anything that a folder holds.
"""
