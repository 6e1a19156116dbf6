"""The token stream of a prepared folder: written from encoded shards, and traced back to its documents."""
