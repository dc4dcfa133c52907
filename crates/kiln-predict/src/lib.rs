//! A model folder to labelled answers: text in, label and scores out.
