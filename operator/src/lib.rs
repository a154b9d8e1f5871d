//! lictor-operator.
