//! Text to encodings, and encodings to length-bucketed batches.
