//! Whole servers in memory: their disks, their network and their time are the test's.

mod cluster;
mod golden;
mod regressions;
mod store;
mod world;
