//! The authoriser: who asks, what that one may, and the only maker of [`Authorized`].
//!
//! Invariants
//! - The raft proposal takes an `Authorized<Command>` and the state answers an `Authorized<Query>`; their fields are
//!   private to this file, so there is no road to the state around a check.
//! - ACLs off is this authoriser answering "all rules", not a second path.
//! - Pure over a snapshot: it is asked anew for every command, on the leader just before the proposal, and at every
//!   wake of a blocked read.

use std::collections::BTreeSet;

use lictor_types::command::{BoundedRegistration, Effect};
use lictor_types::config_entry::ConfigKind;
use lictor_types::session::SessionDestroy;
use lictor_types::token::ANONYMOUS_ACCESSOR;
use lictor_types::{Access, Command, Query, Refusal, Requirement, Resource, Timestamp, Token, Transaction};

use crate::authorize::{needs_of_command, needs_of_query};
use crate::prepared_query;
use crate::store::Store;
use crate::transaction::{Judged, filter_results};

/// What follows a service's name in the name of its sidecar proxy.
const SIDECAR_SUFFIX: &str = "-sidecar-proxy";

/// A command or a query whose asker may do it.
#[derive(Debug)]
pub struct Authorized<T> {
    value: T,
    rules: Rules,
}

impl<T> Authorized<T> {
    /// What a server does of its own accord, not on anybody's request.
    pub fn system(duty: Duty, value: T) -> Self {
        Self { value, rules: Rules { asker: Asker::Duty(duty), grant: Grant::Everything } }
    }

    /// What was authorised.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// What was authorised, to be carried on.
    pub fn into_inner(self) -> T {
        self.value
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }
}

/// What a server does of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Name the cluster, make the mesh CA, set the configured management token.
    Initialize,
    /// Bring the catalog in step with who is alive.
    Reconcile,
    /// Add and remove servers of raft.
    Membership,
    /// Let a workload or an agent in that has proven who it is.
    Login,
    /// End sessions that nobody renewed in time.
    ExpireSessions,
    /// Replace the state by a snapshot that was verified.
    Restore,
    /// Have the servers compare their states.
    Compare,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Asker {
    /// No token was given.
    Anonymous,
    /// The token with this accessor id.
    Token(String),
    /// The server itself.
    Duty(Duty),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Grant {
    Everything,
    Identities {
        services: BTreeSet<String>,
        /// In lower case: a node's name is one whatever its case.
        nodes: BTreeSet<String>,
        default_allow: bool,
    },
}

/// What one asker may, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    asker: Asker,
    grant: Grant,
}

impl Rules {
    /// Whether these rules grant what is required.
    pub fn allows(&self, requirement: &Requirement) -> bool {
        self.permits(requirement.resource, &requirement.name, requirement.access)
    }

    /// Refuses what is not granted, in Consul's words.
    ///
    /// # Errors
    /// 403 with the requirement that is not met.
    pub fn require(&self, requirement: &Requirement) -> Result<(), Refusal> {
        if self.allows(requirement) {
            return Ok(());
        }
        Err(match &self.asker {
            Asker::Token(accessor_id) => Refusal::permission_denied(format_args!(
                "token with AccessorID '{accessor_id}' lacks permission {requirement}"
            )),
            Asker::Anonymous | Asker::Duty(_) => Refusal::permission_denied(format_args!(
                "anonymous token lacks permission {requirement}. The anonymous token is used implicitly when a request \
                 does not specify a token."
            )),
        })
    }

    /// For each requirement in order, the refusal if it is not granted.
    pub fn check(&self, requirements: &[Requirement]) -> Vec<Option<Refusal>> {
        requirements.iter().map(|requirement| self.require(requirement).err()).collect()
    }

    /// Leaves out of what a command did what the asker may not read: a transaction may find more than it named.
    pub fn filter_effect(&self, effect: &mut Effect) {
        if let Effect::Transaction(outcome) = effect {
            filter_results(self, outcome);
        }
    }

    /// Whether no instance of any service, and no node, is hidden from the asker.
    pub(crate) fn reads_every_instance(&self) -> bool {
        match &self.grant {
            Grant::Everything => true,
            // As `permits` has it: who serves anything may read all that serve.
            Grant::Identities { services, default_allow, .. } => *default_allow || !services.is_empty(),
        }
    }

    pub(crate) fn permits(&self, resource: Resource, name: &str, access: Access) -> bool {
        let Grant::Identities { services, nodes, default_allow } = &self.grant else { return true };
        if *default_allow && resource != Resource::Acl {
            return true;
        }
        let is_node = |name: &str| nodes.contains(&name.to_ascii_lowercase());
        match (resource, access) {
            (Resource::Service, Access::Read) => !services.is_empty() || !nodes.is_empty(),
            (Resource::Service, Access::Write) => {
                services.contains(name) || name.strip_suffix(SIDECAR_SUFFIX).is_some_and(|name| services.contains(name))
            }
            (Resource::Node, Access::Read) => !services.is_empty() || is_node(name),
            (Resource::Node, Access::Write) | (Resource::Agent, _) => is_node(name),
            // As in Consul: writing a service means reading its intentions, and some of the intentions of "*" are its
            // own.
            (Resource::Intention, Access::Read) => {
                services.contains(name) || (name == lictor_types::intention::WILDCARD && !services.is_empty())
            }
            (Resource::Mesh, Access::Read) => name == ConfigKind::JwtProvider.as_str() && !services.is_empty(),
            (Resource::Intention | Resource::Mesh, Access::Write)
            | (
                Resource::Acl
                | Resource::Key
                | Resource::KeyPrefix
                | Resource::Operator
                | Resource::Session
                | Resource::Event
                | Resource::Query,
                _,
            ) => false,
        }
    }
}

/// Says what an asker may. One per server; holds what the configuration says of ACLs.
#[derive(Clone, Debug)]
pub struct Authorizer {
    /// Ask for tokens at all.
    pub acl_enabled: bool,
    /// What no rule speaks of is allowed (`acl.default_policy = "allow"`), the ACL tables themselves excepted.
    pub default_allow: bool,
}

impl Authorizer {
    /// What the holder of the secret with this HMAC may now; with no secret, what anybody may.
    ///
    /// # Errors
    /// 403 `ACL not found` when there is no such token or it has expired.
    pub fn resolve(&self, store: &Store, lookup: Option<[u8; 32]>, now: Timestamp) -> Result<Rules, Refusal> {
        if !self.acl_enabled {
            return Ok(Rules { asker: Asker::Anonymous, grant: Grant::Everything });
        }
        let is_live = |token: &&Token| token.expiration_time.is_none_or(|time| time > now);
        let Some(lookup) = lookup else {
            let token = store.tokens.get(ANONYMOUS_ACCESSOR).map(|token| &**token).filter(is_live);
            return Ok(Rules { asker: Asker::Anonymous, grant: self.grant(token) });
        };
        let token = store.token(&lookup).filter(is_live).ok_or_else(Refusal::acl_not_found)?;
        Ok(Rules { asker: Asker::Token(token.accessor_id.clone()), grant: self.grant(Some(token)) })
    }

    fn grant(&self, token: Option<&Token>) -> Grant {
        if token.is_some_and(|token| token.management) {
            return Grant::Everything;
        }
        let services = token.map(|token| token.service_identities.iter().cloned().collect());
        let nodes = token.map(|token| token.node_identities.iter().map(|name| name.to_ascii_lowercase()).collect());
        Grant::Identities {
            services: services.unwrap_or_default(),
            nodes: nodes.unwrap_or_default(),
            default_allow: self.default_allow,
        }
    }

    /// Lets a command pass if the asker may do all that it does to the rows that are stored now. Where its right
    /// depends on stored rows, the command that comes out carries what the right rests on, and is refused if that is
    /// another by then.
    ///
    /// # Errors
    /// 403 with the first requirement that is not met, or why the command makes no sense.
    pub fn authorize_command(
        &self,
        rules: &Rules,
        store: &Store,
        command: Command,
    ) -> Result<Authorized<Command>, Refusal> {
        let needs = needs_of_command(store, rules, &command)?;
        needs.iter().try_for_each(|requirement| rules.require(requirement))?;
        Ok(Authorized { value: Self::bound(rules, store, needs, command), rules: rules.clone() })
    }

    /// The command with what its right rests on: rows may change between here and `apply`.
    fn bound(rules: &Rules, store: &Store, needs: Vec<Requirement>, command: Command) -> Command {
        if rules.grant == Grant::Everything {
            return match command {
                // Nobody but this authoriser says what is granted and denied.
                Command::Transaction(it) => Command::Transaction(Transaction::new(it.operations)),
                Command::SessionDestroy(it) => Command::SessionDestroy(SessionDestroy { authorized_node: None, ..it }),
                other => other,
            };
        }
        match command {
            Command::Register(registration) => {
                let node = Requirement::write(Resource::Node, registration.node.as_str());
                let mut granted = needs;
                if rules.allows(&node) && !granted.contains(&node) {
                    granted.push(node);
                }
                Command::RegisterWithin(Box::new(BoundedRegistration { registration: *registration, granted }))
            }
            Command::Deregister(mut what) => {
                let by_node = rules.permits(Resource::Node, what.node.as_str(), Access::Write);
                what.authorized_service = (!by_node).then(|| store.service_behind(&what).unwrap_or_default());
                Command::Deregister(what)
            }
            Command::SessionDestroy(mut what) => {
                let node = store.session(&what.id).map(|session| session.node.to_string());
                what.authorized_node = Some(node.unwrap_or_default());
                Command::SessionDestroy(what)
            }
            Command::Transaction(Transaction { operations, .. }) => {
                let Judged { granted, denied } = store.judge(rules, &operations);
                // What is denied is not done, so there is no need to carry it through the log.
                let operations = if denied.is_empty() { operations } else { Vec::new() };
                Command::Transaction(Transaction { operations, granted: Some(granted), denied })
            }
            Command::PreparedQuerySet(mut what) => {
                what.authorized = store.prepared_queries.access_name(&what.query.id);
                Command::PreparedQuerySet(what)
            }
            Command::PreparedQueryDelete(mut what) => {
                what.authorized = store.prepared_queries.access_name(&what.id);
                Command::PreparedQueryDelete(what)
            }
            other => other,
        }
    }

    /// The rules that a question is answered under: those of the asker, but a prepared query with a token of its own finds
    /// what that one may see. Questions about one prepared query are refused here, for only the state knows its name.
    ///
    /// # Errors
    /// There is no such query, the asker may not see it, or its token is gone.
    pub fn rules_of_question(
        &self,
        store: &Store,
        rules: Rules,
        query: &Query,
        now: Timestamp,
    ) -> Result<Rules, Refusal> {
        match prepared_query::token_of_question(store, &rules, query)? {
            Some(lookup) => self.resolve(store, Some(lookup), now),
            None => Ok(rules),
        }
    }

    /// Lets a question pass. Questions about one named thing are refused as a whole; of others the answer leaves out
    /// the rows that the asker may not see.
    ///
    /// # Errors
    /// 403 with the requirement that is not met; 500 for a filter that is none.
    pub fn authorize_query(&self, rules: &Rules, query: Query) -> Result<Authorized<Query>, Refusal> {
        if let Some(requirement) = needs_of_query(&query) {
            rules.require(&requirement)?;
        }
        if let Query::Selected(selection) = &query {
            crate::select::check(selection)?;
        }
        Ok(Authorized { value: query, rules: rules.clone() })
    }
}

#[cfg(test)]
mod tests {
    use lictor_types::{Envelope, Index};

    use super::*;

    const ON: Authorizer = Authorizer { acl_enabled: true, default_allow: false };

    fn store_with(token: Token) -> Store {
        let mut store = Store::new();
        let envelope = Envelope { request_id: [1; 16], leader_time: Timestamp(0), command: Command::TokenSet(token) };
        store.apply(&envelope);
        store
    }

    fn token(services: &[&str], nodes: &[&str]) -> Token {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Token {
            accessor_id: "acc".into(),
            lookup: [7; 32],
            sealed_secret: Vec::new(),
            description: String::new(),
            management: false,
            service_identities: owned(services),
            node_identities: owned(nodes),
            create_time: Timestamp(0),
            expiration_time: None,
            create_index: Index(0),
            modify_index: Index(0),
            login_node: None,
            login_node_id: None,
        }
    }

    fn check(rules: &Rules, granted: &[(Resource, &str, Access)], denied: &[(Resource, &str, Access)]) {
        for (resource, name, access) in granted {
            assert!(rules.permits(*resource, name, *access), "{resource:?} {name} {access:?} is not granted");
        }
        for (resource, name, access) in denied {
            assert!(!rules.permits(*resource, name, *access), "{resource:?} {name} {access:?} is granted");
        }
    }

    #[test]
    fn a_service_identity_writes_itself_and_its_sidecar_and_reads_the_catalog() {
        let store = store_with(token(&["web"], &[]));
        let rules = ON.resolve(&store, Some([7; 32]), Timestamp(0)).unwrap();
        check(
            &rules,
            &[
                (Resource::Service, "web", Access::Write),
                (Resource::Service, "web-sidecar-proxy", Access::Write),
                (Resource::Service, "db", Access::Read),
                (Resource::Node, "n1", Access::Read),
                (Resource::Intention, "web", Access::Read),
            ],
            &[
                (Resource::Service, "db", Access::Write),
                (Resource::Service, "web2", Access::Write),
                (Resource::Service, "-sidecar-proxy", Access::Write),
                (Resource::Node, "n1", Access::Write),
                (Resource::Intention, "web", Access::Write),
                (Resource::Intention, "db", Access::Read),
                (Resource::Key, "a", Access::Read),
                (Resource::Acl, "", Access::Read),
                (Resource::Operator, "", Access::Read),
                (Resource::Agent, "n1", Access::Read),
            ],
        );
    }

    #[test]
    fn a_node_identity_writes_its_node_and_agent_whatever_the_case() {
        let store = store_with(token(&[], &["Node-1"]));
        let rules = ON.resolve(&store, Some([7; 32]), Timestamp(0)).unwrap();
        check(
            &rules,
            &[
                (Resource::Node, "node-1", Access::Write),
                (Resource::Agent, "NODE-1", Access::Write),
                (Resource::Service, "db", Access::Read),
            ],
            &[(Resource::Node, "node-2", Access::Read), (Resource::Service, "db", Access::Write)],
        );
    }

    #[test]
    fn denials_are_in_consuls_words() {
        let store = store_with(token(&["web"], &[]));
        let rules = ON.resolve(&store, Some([7; 32]), Timestamp(0)).unwrap();
        let refusal = rules.require(&Requirement::write(Resource::Service, "db")).unwrap_err();
        assert_eq!(
            refusal.text,
            "Permission denied: token with AccessorID 'acc' lacks permission 'service:write' on \"db\""
        );
        let rules = ON.resolve(&store, None, Timestamp(0)).unwrap();
        let refusal = rules.require(&Requirement::read(Resource::Key, "foo")).unwrap_err();
        assert_eq!(
            refusal.text,
            "Permission denied: anonymous token lacks permission 'key:read' on \"foo\". The anonymous token is used \
             implicitly when a request does not specify a token."
        );
    }

    #[test]
    fn an_unknown_or_expired_token_is_not_anonymous_but_nobody() {
        let store = store_with(Token { expiration_time: Some(Timestamp(10)), ..token(&["web"], &[]) });
        assert!(ON.resolve(&store, Some([7; 32]), Timestamp(9)).is_ok());
        assert_eq!(ON.resolve(&store, Some([7; 32]), Timestamp(10)), Err(Refusal::acl_not_found()));
        assert_eq!(ON.resolve(&store, Some([8; 32]), Timestamp(0)), Err(Refusal::acl_not_found()));
    }

    #[test]
    fn default_allow_keeps_the_acl_tables_shut() {
        let authorizer = Authorizer { acl_enabled: true, default_allow: true };
        let rules = authorizer.resolve(&Store::new(), None, Timestamp(0)).unwrap();
        check(&rules, &[(Resource::Key, "a", Access::Write)], &[(Resource::Acl, "", Access::Read)]);
    }

    #[test]
    fn without_acls_everything_is_granted_but_the_leaders_own_commands() {
        let authorizer = Authorizer { acl_enabled: false, default_allow: false };
        let store = Store::new();
        let rules = authorizer.resolve(&store, Some([9; 32]), Timestamp(0)).unwrap();
        check(&rules, &[(Resource::Acl, "", Access::Write), (Resource::Operator, "", Access::Write)], &[]);
        let refused = authorizer.authorize_command(&rules, &store, Command::ServerRemoved("a".into()));
        assert!(refused.unwrap_err().text.contains("the leader"));
    }

    #[test]
    fn a_right_that_rested_on_rows_is_lost_when_they_change() {
        let mut store = store_with(token(&["web"], &[]));
        let mut number = 10;
        let mut apply = |store: &mut Store, command: Command| {
            number += 1;
            store.apply(&Envelope { request_id: [number; 16], leader_time: Timestamp(0), command }).outcome.effect
        };
        let register = |name: &str| {
            Command::Register(Box::new(lictor_types::Registration {
                id: String::new(),
                node: "n1".parse().unwrap(),
                address: String::new(),
                datacenter: String::new(),
                tagged_addresses: std::collections::BTreeMap::new(),
                node_meta: std::collections::BTreeMap::new(),
                service: None,
                check: None,
                checks: vec![lictor_types::HealthCheck {
                    service_id: name.into(),
                    ..lictor_types::HealthCheck::new("c".parse().unwrap(), "c", lictor_types::CheckStatus::Passing, "")
                }],
                skip_node_update: true,
                locality: None,
            }))
        };
        let with_service = |name: &str| {
            let Command::Register(mut it) = register("one") else { unreachable!() };
            it.checks.clear();
            let mut service = lictor_types::NodeService::new(name.parse().unwrap());
            service.id = "one".parse().ok();
            it.service = Some(service);
            Command::Register(it)
        };
        apply(&mut store, with_service("web"));
        let rules = ON.resolve(&store, Some([7; 32]), Timestamp(0)).unwrap();
        let check = ON.authorize_command(&rules, &store, register("one")).unwrap().into_inner();
        let again = ON.authorize_command(&rules, &store, with_service("web")).unwrap().into_inner();
        assert_eq!(apply(&mut store, check.clone()), Effect::Applied);
        apply(&mut store, with_service("db"));
        for command in [check, again] {
            let Effect::Refused(refusal) = apply(&mut store, command) else { panic!("it was done") };
            assert!(refusal.text.contains("'service:write' on \"db\""), "{refusal}");
        }
        let late = ON.authorize_command(&rules, &store, register("one"));
        assert!(late.unwrap_err().text.contains("\"db\""));
    }

    #[test]
    fn who_shares_answers_may_read_every_node_and_every_service() {
        let some = |name: &str| BTreeSet::from([name.to_owned()]);
        let mut shares = Vec::new();
        for services in [BTreeSet::new(), some("web")] {
            for nodes in [BTreeSet::new(), some("n1")] {
                for default_allow in [false, true] {
                    let grant = Grant::Identities { services: services.clone(), nodes: nodes.clone(), default_allow };
                    let rules = Rules { asker: Asker::Anonymous, grant };
                    let reads_all = [Resource::Service, Resource::Node]
                        .into_iter()
                        .all(|resource| rules.permits(resource, "nobody-s", Access::Read));
                    assert_eq!(rules.reads_every_instance(), reads_all, "{rules:?}");
                    shares.push(reads_all);
                }
            }
        }
        assert!(shares.contains(&true) && shares.contains(&false));
    }
}
