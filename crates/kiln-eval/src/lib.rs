//! Logits and targets to a report: JSON, HTML and the most confident mistakes.
