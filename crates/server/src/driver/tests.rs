//! The driver over a store that fails.
