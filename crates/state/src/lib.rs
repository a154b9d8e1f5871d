//! lictor-state.
