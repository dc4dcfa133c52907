//! The compute backends as types: chosen by generics, gated by features.
