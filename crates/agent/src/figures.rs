//! What an agent counts, and how its figures are named.

use std::sync::Arc;

use lictor_identity::RpcMaterial;
use lictor_runtime::Clock;
use lictor_runtime::metrics::{Gauge, Metrics, Naming, Sample};

use crate::config::Config;

/// The figures of one agent.
pub struct Figures {
    /// All of them.
    pub metrics: Arc<Metrics>,
    /// How they are named.
    pub naming: Naming,
    /// Requests of the HTTP API, blocking ones included.
    pub http: Sample,
    /// Questions to the DNS door for what a name stands for.
    pub dns: Sample,
    /// Questions to the DNS door for the name of an address.
    pub dns_reverse: Sample,
}

impl Figures {
    /// Figures among `metrics`, which a server counts in as well.
    pub fn new(metrics: Arc<Metrics>, config: &Config) -> Self {
        metrics.collect(of_the_process);
        let host = (!config.telemetry.disable_hostname).then(|| config.node_name.to_string());
        Self {
            http: metrics.sample("api.http", &[]),
            dns: metrics.sample("dns.domain_query", &[]),
            dns_reverse: metrics.sample("dns.ptr_query", &[]),
            naming: Naming { prefix: config.telemetry.metrics_prefix.clone(), host },
            metrics,
        }
    }
}

/// Shows how many seconds are left of the certificate that the agent speaks RPC with.
pub fn show_certificate_end(metrics: &Metrics, material: Arc<RpcMaterial>, clock: Arc<dyn Clock>) {
    metrics.collect(move |gauges| {
        if let Some(end) = material.own_not_after() {
            let left = end.duration_since(clock.now()).map_or(0.0, |left| left.as_secs_f64());
            gauges.push(Gauge { name: "agent.tls.cert.expiry", value: left });
        }
    });
}

/// What the process takes. In a process of several agents, as `lictor dev` is one, each shows the whole.
fn of_the_process(gauges: &mut Vec<Gauge>) {
    const PAGE_BYTES: f64 = 4096.0;
    if let Ok(text) = std::fs::read_to_string("/proc/self/statm") {
        let pages: Vec<f64> = text.split(' ').filter_map(|pages| pages.trim().parse().ok()).collect();
        if let [whole, resident, ..] = pages[..] {
            gauges.push(Gauge { name: "runtime.alloc_bytes", value: resident * PAGE_BYTES });
            gauges.push(Gauge { name: "runtime.sys_bytes", value: whole * PAGE_BYTES });
        }
    }
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        // Dashboards of Consul look for the number of goroutines; tasks are ours.
        gauges.push(Gauge { name: "runtime.num_goroutines", value: runtime.metrics().num_alive_tasks() as f64 });
    }
}
