//! The tokens that an agent asks with where a request brings none. Replaced in force, without a restart.

use arc_swap::ArcSwap;
use lictor_types::Credential;

use crate::config::Config;

/// The agent's own tokens.
#[derive(Debug)]
pub struct AgentTokens {
    default: ArcSwap<Credential>,
    agent: ArcSwap<Credential>,
    dns: ArcSwap<Credential>,
}

impl AgentTokens {
    /// Those of the configuration.
    pub fn of(config: &Config) -> Self {
        let acl = &config.acl;
        Self::new(acl.default_token.clone(), acl.agent_token.clone(), acl.dns_token.clone())
    }

    /// For requests without a token, for what concerns the agent's own node, and for DNS.
    pub fn new(default: Credential, agent: Credential, dns: Credential) -> Self {
        let [default, agent, dns] = [default, agent, dns].map(ArcSwap::from_pointee);
        Self { default, agent, dns }
    }

    /// Those of the configuration, from now on.
    pub fn set(&self, config: &Config) {
        let acl = &config.acl;
        self.default.store(acl.default_token.clone().into());
        self.agent.store(acl.agent_token.clone().into());
        self.dns.store(acl.dns_token.clone().into());
    }

    /// One token for everything, from now on.
    pub fn set_all(&self, token: &Credential) {
        for place in [&self.default, &self.agent, &self.dns] {
            place.store(token.clone().into());
        }
    }

    /// For requests without a token.
    pub fn default(&self) -> Credential {
        Credential::clone(&self.default.load())
    }

    /// For what concerns the agent's own node.
    pub fn agent(&self) -> Credential {
        Credential::clone(&self.agent.load())
    }

    /// For DNS.
    pub fn dns(&self) -> Credential {
        Credential::clone(&self.dns.load())
    }
}
