//! Labelled files (csv, tsv, jsonl, parquet, Arrow) to examples: read, split, audit.
