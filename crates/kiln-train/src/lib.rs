//! Fine-tuning: optimizer groups, schedule, the loop, checkpoints and the feature cache.
