//! Who may take a node's name by logging in.
//!
//! Invariants
//! - A login and what it uses up are one command: a refused one leaves the join token and every other token as they were.
//! - No login takes a server's name, whatever it shows.
//! - A name is that of the node that has it until that node is known to have failed, as in Consul.

use lictor_types::check::SERF_HEALTH;
use lictor_types::command::{Effect, LoginRenewal, NameRight, NodeLogin};
use lictor_types::{CheckStatus, NodeName, Refusal};

use crate::changes::Commit;
use crate::store::Store;
use crate::tables::Key;
use crate::tables::nodes::node_key;

/// The service that every server registers.
const SERVERS: &str = "consul";

impl Store {
    /// Lets a node in.
    pub(crate) fn node_login(&mut self, commit: &mut Commit, login: &NodeLogin) -> Result<Effect, Refusal> {
        let token = &login.token;
        let node: NodeName = token
            .login_node
            .as_deref()
            .unwrap_or_default()
            .parse()
            .map_err(|error| Refusal::bad_request(format!("a login is for a node: {error}")))?;
        let id = token.login_node_id.as_deref().unwrap_or_default();
        let shown = login.join_token.as_ref().map(|lookup| **lookup);
        if let Some(lookup) = &shown {
            self.tokens.check_join_token(lookup, &node)?;
        }
        self.check_login(&node, id, login.right)?;
        self.tokens.check(token)?;
        if let Some(lookup) = &shown {
            self.tokens.use_join_token(lookup)?;
        }
        // What has a pod's name but not its id is a pod that is gone.
        let key = node_key(&node);
        if login.right == NameRight::Proven
            && self.nodes.get(&key).is_some_and(|row| !id.is_empty() && !row.id.eq_ignore_ascii_case(id))
        {
            self.remove_node(commit, &key);
        }
        self.tokens.set(commit, token)
    }

    /// Whether a login may take the name `node` for the node with this id.
    ///
    /// # Errors
    /// 403: the name is another's, and which one's.
    pub fn check_login(&self, node: &NodeName, id: &str, right: NameRight) -> Result<(), Refusal> {
        let key = node_key(node);
        if self.services.get(&key, SERVERS).is_some() {
            return Err(Refusal::permission_denied(format!(
                "the node name {:?} is a server's: give this agent another name with -node",
                node.as_str()
            )));
        }
        self.check_login_id(&key, node, id)?;
        if right == NameRight::Proven {
            return Ok(());
        }
        let same = |other: &str| !id.is_empty() && other.eq_ignore_ascii_case(id);
        let taken = |holder: &str, what: &str| {
            Err(Refusal::permission_denied(format!(
                "the node name {:?} belongs to {holder}, {what}: give this agent another name with -node, or wait until \
                 that one is known to have failed",
                node.as_str()
            )))
        };
        if let Some(row) = self.nodes.get(&key) {
            let holder = format!("the node {:?} ({})", row.id, row.address);
            return match self.checks.get(&key, SERF_HEALTH) {
                _ if same(&row.id) => Ok(()),
                Some(health) if health.status == CheckStatus::Critical => Ok(()),
                Some(_) => taken(&holder, "which is alive for all we know"),
                None if right == NameRight::Named => Ok(()),
                None => taken(&holder, "which was registered without an agent"),
            };
        }
        match self.tokens.of_login(&key).and_then(|token| token.login_node_id.as_deref()) {
            Some(other) if !same(other) => taken(&format!("the node {other:?}"), "which has logged in"),
            _ => Ok(()),
        }
    }

    /// An id is one node's: with another's id a node would push that one out of the catalog.
    fn check_login_id(&self, key: &Key, node: &NodeName, id: &str) -> Result<(), Refusal> {
        if id.is_empty() {
            return Ok(());
        }
        let Some(other) = self.nodes.by_id(id).filter(|other| node_key(&other.name) != *key) else { return Ok(()) };
        let health = self.checks.get(&node_key(&other.name), SERF_HEALTH);
        if health.is_some_and(|health| health.status == CheckStatus::Critical) {
            return Ok(());
        }
        Err(Refusal::permission_denied(format!(
            "the node id {id} is that of the node {:?} and cannot be that of {:?} too: every agent needs a data directory \
             of its own",
            other.name.as_str(),
            node.as_str()
        )))
    }

    /// Moves the end of the token of a node's login on.
    pub(crate) fn login_renew(&mut self, commit: &Commit, renewal: &LoginRenewal) -> Result<Effect, Refusal> {
        let found = self.tokens.of_login(&node_key(&renewal.node)).cloned();
        let mut token = (*found.ok_or_else(Refusal::acl_not_found)?).clone();
        token.expiration_time = token.expiration_time.map(|time| time.max(renewal.expiration_time));
        self.tokens.set(commit, &token)
    }

    /// The id of the node whose login made the token that it has; none when it has none, or an old one that does not say.
    pub fn login_node_id(&self, node: &NodeName) -> Option<&str> {
        self.tokens.of_login(&node_key(node)).and_then(|token| token.login_node_id.as_deref())
    }
}
