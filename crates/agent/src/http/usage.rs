//! `/v1/operator/usage`: how many services and instances there are.

use std::collections::BTreeMap;

use lictor_types::rpc::{Operation, Report};
use serde::Serialize;

use super::caller::{Order, mark_index};
use super::failure::{Answered, Failure};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DatacenterUsage<'a> {
    nodes: u64,
    services: u64,
    service_instances: u64,
    connect_service_instances: &'a BTreeMap<String, u64>,
    billable_service_instances: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct UsageJson<'a> {
    usage: BTreeMap<&'a str, DatacenterUsage<'a>>,
    index: u64,
    last_contact: u64,
    known_leader: bool,
    consistency_level: &'static str,
    not_modified: bool,
    backend: u8,
    #[serde(rename = "ResultsFilteredByACLs")]
    results_filtered_by_acls: bool,
}

/// `GET /v1/operator/usage`; `?global` shows every datacenter that is known, which is one.
pub(super) async fn usage(order: Order) -> Answered {
    let Report::Usage(usage) = order.operate(Operation::Usage).await? else {
        return Err(Failure::unexpected_answer());
    };
    let of_datacenter = DatacenterUsage {
        nodes: usage.nodes,
        services: usage.services,
        service_instances: usage.service_instances,
        connect_service_instances: &usage.connect_instances,
        billable_service_instances: usage.billable_instances,
    };
    let mut response = order.json(&UsageJson {
        usage: BTreeMap::from([(order.door.agent.identity.datacenter.as_str(), of_datacenter)]),
        index: usage.index.0,
        last_contact: 0,
        known_leader: true,
        consistency_level: "leader",
        not_modified: false,
        backend: 0,
        results_filtered_by_acls: false,
    })?;
    mark_index(&mut response, usage.index);
    Ok(response)
}
