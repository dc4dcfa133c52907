//! A checkpoint's source (Hugging Face, ModelScope or a folder) to a verified local snapshot.
