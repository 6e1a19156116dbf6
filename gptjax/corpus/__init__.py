"""Raw text to prepared folders: readers, tokenizers, shards, manifest. Needs no JAX."""
