//! How the agent's own instances are, for `agent/health/service`.

use lictor_types::{CheckStatus, HealthCheck, NodeService};

use super::{Local, NODE_MAINTENANCE, SERVICE_MAINTENANCE};

/// An instance with what its checks and those of the node say together.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceHealth {
    /// `passing`, `warning`, `critical` or `maintenance`: the worst there is.
    pub status: &'static str,
    /// The instance.
    pub service: NodeService,
    /// Its checks and those of the node.
    pub checks: Vec<HealthCheck>,
}

impl Local {
    /// The instance with this id.
    pub fn service_health(&self, id: &str) -> Option<ServiceHealth> {
        self.health_of(|service| service.id_text() == id).pop()
    }

    /// All instances of the service with this name.
    pub fn service_health_by_name(&self, name: &str) -> Vec<ServiceHealth> {
        self.health_of(|service| service.name.as_str().eq_ignore_ascii_case(name))
    }

    fn health_of(&self, wanted: impl Fn(&NodeService) -> bool) -> Vec<ServiceHealth> {
        let rows = self.rows.lock();
        let health = |service: &NodeService| {
            let of_it = rows.checks.values().map(|row| &row.check);
            let checks: Vec<HealthCheck> = of_it
                .filter(|check| check.service_id.is_empty() || check.service_id == service.id_text())
                .cloned()
                .collect();
            ServiceHealth { status: worst(&checks), service: service.clone(), checks }
        };
        rows.services.values().map(|row| &row.service).filter(|service| wanted(service)).map(health).collect()
    }
}

fn worst(checks: &[HealthCheck]) -> &'static str {
    let maintenance = |check: &HealthCheck| {
        let id = check.check_id.as_ref().map_or("", |id| id.as_str());
        id == NODE_MAINTENANCE || id.starts_with(SERVICE_MAINTENANCE)
    };
    if checks.iter().any(maintenance) {
        return "maintenance";
    }
    checks.iter().map(|check| check.status).max().unwrap_or(CheckStatus::Passing).as_str()
}
