//! lictor-server.
