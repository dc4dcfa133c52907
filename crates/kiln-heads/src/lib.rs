//! Heads on BERT, one file a head: hidden states to logits to loss.
