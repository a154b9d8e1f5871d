//! Unmodified real clients against real processes, and our answers beside a real Consul's.

mod compare;
mod comparison;
mod consul;
mod http;
mod script;
mod tools;

use std::path::PathBuf;

/// Where tools stay between runs.
fn cache() -> PathBuf {
    PathBuf::from(std::env::var_os("LICTOR_CACHE").expect("LICTOR_CACHE names a directory; `cargo xtask test` sets it"))
}

#[test]
fn answers_are_a_real_consuls_field_by_field() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    comparison::run(&cache(), directory.path()).unwrap_or_else(|error| panic!("{error}"));
}
