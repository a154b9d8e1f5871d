//! The tokens that an agent asks with where a request brings none. Replaced in force, without a restart.

use std::collections::BTreeMap;

use arc_swap::ArcSwap;
use lictor_types::Credential;
use parking_lot::Mutex;

use crate::config::Config;

/// The agent's own tokens.
#[derive(Debug)]
pub struct AgentTokens {
    default: ArcSwap<Credential>,
    agent: ArcSwap<Credential>,
    dns: ArcSwap<Credential>,
    registration: ArcSwap<Credential>,
    /// Set through the API and kept over restarts: no configuration that is read later takes their place.
    kept: Mutex<BTreeMap<TokenKind, Credential>>,
}

/// One of the agent's own tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenKind {
    /// For requests without a token.
    Default,
    /// For what concerns the agent's own node.
    Agent,
    /// For DNS.
    Dns,
    /// For services and checks of files that name none.
    Registration,
}

impl TokenKind {
    /// The kind that the API calls so, by its name or an old one.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "default" | "acl_token" => Self::Default,
            "agent" | "acl_agent_token" => Self::Agent,
            "dns" => Self::Dns,
            "config_file_service_registration" => Self::Registration,
            _ => return None,
        })
    }

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Agent => "agent",
            Self::Dns => "dns",
            Self::Registration => "config_file_service_registration",
        }
    }
}

impl AgentTokens {
    /// Those of the configuration.
    pub fn of(config: &Config) -> Self {
        let acl = &config.acl;
        let tokens = Self::new(acl.default_token.clone(), acl.agent_token.clone(), acl.dns_token.clone());
        tokens.registration.store(acl.registration_token.clone().into());
        tokens
    }

    /// For requests without a token, for what concerns the agent's own node, and for DNS.
    pub fn new(default: Credential, agent: Credential, dns: Credential) -> Self {
        let [default, agent, dns] = [default, agent, dns].map(ArcSwap::from_pointee);
        Self { default, agent, dns, registration: ArcSwap::default(), kept: Mutex::default() }
    }

    /// Those of the configuration, from now on.
    pub fn set(&self, config: &Config) {
        let acl = &config.acl;
        self.default.store(acl.default_token.clone().into());
        self.agent.store(acl.agent_token.clone().into());
        self.dns.store(acl.dns_token.clone().into());
        self.registration.store(acl.registration_token.clone().into());
        for (kind, token) in self.kept.lock().iter() {
            self.replace(*kind, token.clone());
        }
    }

    /// Another token of this kind, from now on, whatever a configuration says that is read later.
    pub fn keep(&self, kind: TokenKind, token: Credential) {
        self.kept.lock().insert(kind, token.clone());
        self.replace(kind, token);
    }

    /// Those that are kept, by their names.
    pub(crate) fn kept(&self) -> BTreeMap<String, String> {
        self.kept.lock().iter().map(|(kind, token)| (kind.name().to_owned(), token.secret.clone())).collect()
    }

    /// Another token of this kind, from now on.
    pub fn replace(&self, kind: TokenKind, token: Credential) {
        let place = match kind {
            TokenKind::Default => &self.default,
            TokenKind::Agent => &self.agent,
            TokenKind::Dns => &self.dns,
            TokenKind::Registration => &self.registration,
        };
        place.store(token.into());
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

    /// For services and checks of files that name none; anonymous where the default one is.
    pub fn registration(&self) -> Credential {
        Credential::clone(&self.registration.load())
    }

    /// For DNS.
    pub fn dns(&self) -> Credential {
        Credential::clone(&self.dns.load())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_token_stays_and_another_follows_the_configuration() {
        let flags = crate::config::Flags {
            fragments: vec![
                "bind_addr = \"127.0.0.1\"\ndata_dir = \"/data\"\nnode_name = \"n1\"".into(),
                "acl { tokens { default = \"one\" config_file_service_registration = \"files\" } }".into(),
            ],
            ..crate::config::Flags::default()
        };
        let config = Config::load(&flags, &crate::config::Host::default()).unwrap();
        let tokens = AgentTokens::of(&config);
        assert_eq!(tokens.registration().secret, "files");
        tokens.keep(TokenKind::Default, Credential::new("kept"));
        tokens.replace(TokenKind::Dns, Credential::new("until the next reload"));
        tokens.set(&config);
        assert_eq!((tokens.default().secret.as_str(), tokens.dns().secret.as_str()), ("kept", "one"));
        assert_eq!(tokens.kept(), BTreeMap::from([("default".to_owned(), "kept".to_owned())]));
        assert_eq!(TokenKind::named("acl_agent_token"), Some(TokenKind::Agent));
        assert_eq!(TokenKind::named("other"), None);
    }
}
