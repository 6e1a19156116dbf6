"""Models, adapters and tokenizers in the formats of other programs.

huggingface/            folders of transformers, written and read
tokenizer_folder.py     the tokenizer's files in such a folder; tokenizer_json.py: the main one of them
chat_template.py        from a chat template in Jinja to the template as data
peft.py                 adapters as PEFT's folders; adapters.py: several adapters over one run
gguf.py                 a GGUF file for llama.cpp; gguf_model.py, gguf_tokenizer.py: its settings and its tokenizer
gguf_check.py           whether this file holds the model: read back, and computed by llama.cpp
"""
