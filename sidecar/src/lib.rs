//! lictor-sidecar.
