//! Maintenance: a check without a runner that is critical for as long as it is there.

use std::sync::Arc;

use lictor_types::{CheckId, CheckStatus, Credential, Refusal, ServiceId};

use super::changes::{Concern, Plan};
use super::definition::CheckDefinition;
use super::store::Record;
use super::{Local, NODE_MAINTENANCE, SERVICE_MAINTENANCE, unknown_service};

impl Local {
    /// Puts an instance under maintenance, or takes it out.
    ///
    /// # Errors
    /// 404 for an unknown id.
    pub async fn set_service_maintenance(
        self: &Arc<Self>,
        id: &ServiceId,
        enable: bool,
        reason: &str,
        credential: Credential,
    ) -> Result<(), Refusal> {
        let service = self.service(id).ok_or_else(|| unknown_service(id.as_str()))?;
        let check = format!("{SERVICE_MAINTENANCE}{}", service.id_text());
        let reason = if reason.is_empty() {
            "Maintenance mode is enabled for this service, but no reason was provided. This is a default message."
        } else {
            reason
        };
        self.set_maintenance(&check, "Service Maintenance Mode", id.as_str(), enable.then_some(reason), credential)
            .await
    }

    /// Puts the node under maintenance, or takes it out.
    ///
    /// # Errors
    /// It cannot be kept.
    pub async fn set_node_maintenance(
        self: &Arc<Self>,
        enable: bool,
        reason: &str,
        credential: Credential,
    ) -> Result<(), Refusal> {
        let reason = if reason.is_empty() {
            "Maintenance mode is enabled for this node, but no reason was provided. This is a default message."
        } else {
            reason
        };
        self.set_maintenance(NODE_MAINTENANCE, "Node Maintenance Mode", "", enable.then_some(reason), credential).await
    }

    async fn set_maintenance(
        self: &Arc<Self>,
        id: &str,
        name: &str,
        service_id: &str,
        reason: Option<&str>,
        token: Credential,
    ) -> Result<(), Refusal> {
        let id: CheckId = id.parse().map_err(|error| Refusal::bad_request(format!("{error}")))?;
        let definition = reason.map(|reason| CheckDefinition {
            id: id.as_str().into(),
            name: name.into(),
            service_id: service_id.into(),
            notes: reason.into(),
            status: CheckStatus::Critical.as_str().into(),
            token,
            ..CheckDefinition::default()
        });
        let mut concerns = self.concerns_of_check(&id);
        concerns.extend((!service_id.is_empty()).then(|| Concern::Service(service_id.into())));
        let plan = move |local: &Arc<Self>| match definition {
            Some(definition) => {
                local.must_have_service(&definition.service_id)?;
                let records = vec![Record::Check(Box::new(local.kept_check(&definition)))];
                Ok(Plan::new(records, move |local| local.take_check(definition, true)))
            }
            None if local.check(&id).is_some() => {
                Ok(Plan::new(vec![Record::CheckGone(id.to_string())], move |local| {
                    local.drop_check(&id);
                    Ok(())
                }))
            }
            None => Ok(Plan::nothing()),
        };
        self.change(concerns, plan).await?;
        self.settle().await;
        Ok(())
    }
}
