"""The names of a batch's arrays. The modules of `data` write them, and objectives read them."""

TOKENS = "tokens"  # int32 [B, T]: the tokens that the model reads
TARGETS = "targets"  # int32 [B, T]: the token to predict at each position
WEIGHTS = "weights"  # float32 [B, T], or [B] for labelled texts: 0 where nothing is predicted
LABELS = "labels"  # int32 [B]: the number of a text's label
SEGMENTS = "segments"  # int32 [B, T]: documents of a packed row, from 1; 0 is padding
POSITIONS = "positions"  # int32 [B, T]: from 0 within each segment
REJECTED = "rejected_"  # prefix of tokens, targets and weights of a preference's other answer
SOURCE = "source"  # int32 [B, S]: the tokens that an encoder reads
SOURCE_SEGMENTS = "source_segments"
SOURCE_POSITIONS = "source_positions"
