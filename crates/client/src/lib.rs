//! lictor-client.
