"""The decoder and its parts: attention, feed-forward, positions, norms. Knows no mesh, file or optimizer."""
