//! lictor-cli.
