//! Real processes on loopback: no acknowledged write is lost, whoever is killed, and no change escapes a blocking query.

mod blocking;
mod certificates;
mod damage;
mod descriptors;
mod durability;
mod events;
mod failover;
mod full_disk;
mod https;
mod journal;
mod leave;
mod locks;
mod membership;
mod metrics;
mod names;
mod overload;
mod peers_file;
mod pressure;
mod recovery;
mod refusals;
mod scaling;
mod snapshot;
mod sync_error;
mod verbs;
mod watches;
