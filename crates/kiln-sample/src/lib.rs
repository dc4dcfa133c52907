//! A small BERT and a small data set of Chinese reviews, compiled in.
