"""Device meshes, the table that splits parameters over them, and runs of several processes."""
