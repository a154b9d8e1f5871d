//! Unmodified real clients against real processes, and our answers beside a real Consul's.

mod clients;
mod compare;
mod comparison;
mod consul;
mod dns;
mod http;
mod locks_script;
mod resolvers;
mod script;
mod script_config;
mod script_queries;
mod selections;

use std::path::PathBuf;

use lictor_tests::process::{lictor, next_address};
use lictor_tests::{TestCluster, tools};

use crate::clients::{GoSuite, NodeSuite, PythonSuite};
use crate::consul::DevelopmentAgent;

/// Where tools stay between runs.
fn cache() -> PathBuf {
    PathBuf::from(std::env::var_os("LICTOR_CACHE").expect("LICTOR_CACHE names a directory; `cargo xtask test` sets it"))
}

/// What must hold, or its reason why not.
#[track_caller]
fn hold<T>(what: &str, result: Result<T, String>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error}"))
}

#[test]
fn answers_are_a_real_consuls_field_by_field() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    hold("the comparison", comparison::run(&cache(), directory.path()));
}

#[test]
fn every_form_of_question_is_answered_as_dig_expects_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    hold("DNS", dns::run(&cache(), directory.path()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consuls_go_client_drives_an_agent_of_three_servers_and_a_development_agent() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let suite = hold("the Go suite", GoSuite::build(directory.path()));
    let cluster = TestCluster::start(3).await;
    let with_cluster = hold("Go and a client agent", suite.run(&cluster.client.address));
    drop(cluster);
    let agent = hold("agent -dev", DevelopmentAgent::start(&lictor(), &next_address(), directory.path()));
    let with_agent = hold("Go and agent -dev", suite.run(&agent.address.ip().to_string()));
    let own = hold("Go and its own server", suite.run_with_own_server(&lictor(), directory.path()));
    println!(
        "\nsummary: Go hashicorp/consul/api: {with_cluster} tests pass against a client agent of three servers, {with_agent} \
         against `agent -dev`, {own} with the server that sdk/testutil starts as `consul`"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn py_consul_drives_an_agent_of_three_servers_and_a_development_agent() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let suite = hold("the Python suite", PythonSuite::prepare(&cache()));
    let cluster = TestCluster::start(3).await;
    let with_cluster = hold("Python and a client agent", suite.run(&cluster.client.address));
    drop(cluster);
    let agent = hold("agent -dev", DevelopmentAgent::start(&lictor(), &next_address(), directory.path()));
    let with_agent = hold("Python and agent -dev", suite.run(&agent.address.ip().to_string()));
    println!(
        "\nsummary: py-consul: {with_cluster} tests pass against a client agent of three servers, {with_agent} against `agent -dev`"
    );
}

#[test]
fn resolvers_of_others_find_few_and_many() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let asked = hold("resolvers", resolvers::run(&cache(), directory.path()));
    println!("\nsummary: {asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_client_drives_an_agent_of_three_servers_and_a_development_agent() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let suite = hold("the Node suite", NodeSuite::prepare(&cache()));
    let cluster = TestCluster::start(3).await;
    let with_cluster = hold("Node and a client agent", suite.run(&cluster.client.address));
    drop(cluster);
    let agent = hold("agent -dev", DevelopmentAgent::start(&lictor(), &next_address(), directory.path()));
    let with_agent = hold("Node and agent -dev", suite.run(&agent.address.ip().to_string()));
    println!(
        "\nsummary: Node's consul: {with_cluster} tests pass against a client agent of three servers, {with_agent} against \
         `agent -dev`"
    );
}
