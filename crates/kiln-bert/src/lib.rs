//! BERT: config, embeddings, encoder, pooler; Hugging Face checkpoints in and out.
