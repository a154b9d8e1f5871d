//! Real processes on loopback: no acknowledged write is lost, whoever is killed, and no change escapes a blocking query.

mod durability;
mod events;
mod membership;
