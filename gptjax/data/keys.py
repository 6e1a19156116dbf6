"""The names of a batch's arrays: what makes rows writes them, and an objective reads them."""

TOKENS = "tokens"  # int32 [B, T]: what is read
TARGETS = "targets"  # int32 [B, T]: what is to be predicted at each position
WEIGHTS = "weights"  # float32 [B, T], or [B] of labelled texts: 0 where nothing is to be learned
LABELS = "labels"  # int32 [B]: the number of a text's label
SEGMENTS = "segments"  # int32 [B, T]: documents of a packed row, from 1; 0 is padding
POSITIONS = "positions"  # int32 [B, T]: from 0 within each segment
SOURCE = "source"  # int32 [B, S]: what an encoder reads
SOURCE_SEGMENTS = "source_segments"
SOURCE_POSITIONS = "source_positions"
