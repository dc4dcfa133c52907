//! Predictions and targets to numbers: accuracy, precision, recall, F1, confusion.
