//! `/v1/operator/usage`: how many services and instances there are.

use std::collections::BTreeMap;

use lictor_types::rpc::{Operation, Report};
use serde::Serialize;

use super::caller::{Order, mark_index};
use super::failure::{Answered, Failure};
use super::read_record::ReadRecord;

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
    #[serde(flatten)]
    record: ReadRecord,
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
        record: ReadRecord::of_leader(usage.index),
    })?;
    mark_index(&mut response, usage.index);
    Ok(response)
}
