"""Models and their parts: attention, feed-forward, positions, norms. Independent of meshes, files and optimizers."""
