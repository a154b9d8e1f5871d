//! lictor-tests.
