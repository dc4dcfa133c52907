//! What bundles promise.

mod families;
mod invariance;
mod outliers;
mod sealed;
mod smoothing;
