//! Many real agents and three servers: agents with gossip, checks and doors of their own, several in this process.

mod many;
mod truth;

use lictor_client::{Client, ClientSettings};
use serde_json::Value;

/// A client of the HTTP API at this address.
fn client_of(address: &str) -> Client {
    let address = format!("http://{address}:8500");
    Client::new(ClientSettings { address, ..ClientSettings::default() }).expect("a client")
}

async fn get(client: &Client, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
    client.get_json::<Value>(path, query).await.map(|(value, _)| value).map_err(|error| error.to_string())
}
