//! lictor-bench.
