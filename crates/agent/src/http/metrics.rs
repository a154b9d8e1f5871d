//! `/v1/agent/metrics`: the figures of this agent, in Consul's JSON and in the text form of Prometheus.

use std::collections::BTreeMap;

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use lictor_runtime::metrics::Summary;
use lictor_types::{Requirement, Resource, Timestamp};
use serde::Serialize;

use super::caller::Caller;
use super::failure::{Answered, text};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GaugeJson {
    name: String,
    value: f64,
    labels: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SummaryJson {
    name: String,
    count: u64,
    rate: f64,
    sum: f64,
    min: f64,
    max: f64,
    mean: f64,
    stddev: f64,
    labels: BTreeMap<String, String>,
}

impl From<Summary> for SummaryJson {
    fn from(summary: Summary) -> Self {
        let Summary { name, labels, count, rate, sum, min, max, mean, deviation } = summary;
        Self { name, count, rate, sum, min, max, mean, stddev: deviation, labels }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MetricsJson {
    timestamp: String,
    gauges: Vec<GaugeJson>,
    /// Consul has none either.
    points: [(); 0],
    counters: Vec<SummaryJson>,
    samples: Vec<SummaryJson>,
}

/// `GET /v1/agent/metrics`; `?format=prometheus` is always answered, whatever `telemetry` says.
pub(super) async fn metrics(caller: Caller) -> Answered {
    let agent = &caller.door.agent;
    caller.require(Requirement::read(Resource::Agent, agent.identity.node_name.as_str())).await?;
    let figures = &agent.figures;
    if caller.params.text("format") == Some("prometheus") {
        const EXPOSITION: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        let mut response: Response = text(StatusCode::OK, figures.metrics.prometheus(&figures.naming));
        response.headers_mut().insert(header::CONTENT_TYPE, EXPOSITION);
        return Ok(response);
    }
    let now = Timestamp::from(agent.clock.now()).to_rfc3339();
    let gauges = figures.metrics.gauges().into_iter().map(|gauge| GaugeJson {
        name: figures.naming.of_gauge(gauge.name),
        value: gauge.value,
        labels: BTreeMap::new(),
    });
    caller.json(&MetricsJson {
        timestamp: format!("{} +0000 UTC", now.trim_end_matches('Z').replace('T', " ")),
        gauges: gauges.collect(),
        points: [],
        counters: figures.metrics.counters(&figures.naming).into_iter().map(Into::into).collect(),
        samples: figures.metrics.samples(&figures.naming).into_iter().map(Into::into).collect(),
    })
}
