//! The words of the golden scripts.

mod config;
mod locks;
mod prepared;
mod release;
mod show;

use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Waker};

use lictor_state::Store;
use lictor_state::access::{Authorized, Authorizer, Duty};
use lictor_state::published::Published;
use lictor_state::watches::Watch;
use lictor_types::authority::{AuthorityRecord, AuthoritySettings};
use lictor_types::autopilot::{AutopilotConfig, AutopilotSet};
use lictor_types::command::{
    Effect, IntentionDelete, IntentionUpsert, IntentionsDelete, IntentionsSet, KvCommand, LoginRenewal, NameRight,
    NodeLogin, ServiceClaim,
};
use lictor_types::query::{IntentionMatch, IntentionQuery, KeysQuery, ServiceQuery, StateQuery};
use lictor_types::token::{ANONYMOUS_ACCESSOR, JoinToken};
use lictor_types::{
    Action, CaRoot, Command, Coordinate, Deregistration, Envelope, Index, KvVerb, Merge, Near, NodeCoordinate, Query,
    Refusal, Selection, SourceIntention, Timestamp, Token, encoding,
};

/// A state, who asks it, what time it is, and who waits.
#[derive(Default)]
pub(crate) struct Runner {
    store: Store,
    published: Published,
    watches: BTreeMap<String, Watch>,
    time: u64,
    requests: u64,
    request: Option<u64>,
    /// The secret of who asks; `None` is the system.
    asker: Option<String>,
    /// All that was applied, as it stands in a log.
    log: Vec<Vec<u8>>,
}

/// Arguments of a line: words, and `name=value` pairs.
struct Arguments<'a> {
    words: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Arguments<'a> {
    fn new(line: &'a str) -> Self {
        let mut it = Self { words: Vec::new(), named: BTreeMap::new() };
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => drop(it.named.insert(name, value)),
                None => it.words.push(word),
            }
        }
        it
    }

    fn word(&self, at: usize) -> &'a str {
        self.words.get(at).copied().unwrap_or("")
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.named.get(name).map(|text| text.parse().unwrap())
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.named.get(name).map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }
}

/// The HMAC that stands for a secret: a script has no key.
fn lookup(secret: &str) -> [u8; 32] {
    let mut lookup = [0; 32];
    lookup[..secret.len()].copy_from_slice(secret.as_bytes());
    lookup
}

impl Runner {
    pub(crate) fn line(&mut self, line: &str) -> Vec<String> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "time" => self.time = rest.parse::<u64>().unwrap() * 1000,
            "request" => self.request = Some(rest.parse().unwrap()),
            "as" => self.asker = (rest != "system").then(|| rest.to_owned()),
            "restore" => self.store = Store::restore(&self.store.snapshot()).unwrap(),
            "watch" => {
                let (name, query) = rest.split_once(' ').unwrap();
                let query = query_of(query).unwrap_or_else(|| panic!("{query:?} is no question"));
                self.watches.insert(name.to_owned(), self.published.watches().register(&query));
            }
            _ => {
                return match query_of(line) {
                    Some(query) => self.ask(query),
                    None => self.apply(command_of(line)),
                };
            }
        }
        Vec::new()
    }

    fn apply(&mut self, command: Command) -> Vec<String> {
        let command = match self.authorize_command(command) {
            Ok(command) => command.into_inner(),
            Err(refusal) => return vec![format!("denied: {refusal}")],
        };
        self.requests += 1;
        // Requests that a script numbers itself are apart from the others.
        let number = self.request.take().map_or(self.requests + 1_000_000, |number| number);
        let mut request_id = [0; 16];
        request_id[..8].copy_from_slice(&number.to_be_bytes());
        let envelope = Envelope { request_id, leader_time: Timestamp(self.time), command };
        self.log.push(encoding::encode(&envelope));
        let applied = self.store.apply(&envelope);
        self.published.publish(self.store.clone(), &applied.changes);
        let index = applied.outcome.index;
        let mut lines = vec![match applied.outcome.effect {
            Effect::Applied => format!("@{index} applied"),
            Effect::NotApplied => format!("@{index} not applied"),
            Effect::Unassigned(names) => format!("@{index} applied, taken from {}", names.join(",")),
            Effect::Transaction(outcome) => format!("@{index} {}", show::transaction(&outcome).join("\n    ")),
            Effect::Refused(refusal) => format!("@{index} refused {}: {refusal}", refusal.status()),
        }];
        for (name, watch) in &mut self.watches {
            if pin!(watch.changed()).poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                lines.push(format!("  wakes {name}"));
            }
        }
        lines
    }

    fn authorize_command(&self, command: Command) -> Result<Authorized<Command>, Refusal> {
        let Some(asker) = &self.asker else { return Ok(Authorized::system(Duty::Initialize, command)) };
        let authorizer = Authorizer { acl_enabled: true, default_allow: false };
        let rules = authorizer.resolve(&self.store, secret(asker), Timestamp(self.time))?;
        authorizer.authorize_command(&rules, &self.store, command)
    }

    fn authorize_query(&self, query: Query) -> Result<Authorized<Query>, Refusal> {
        let Some(asker) = &self.asker else { return Ok(Authorized::system(Duty::Initialize, query)) };
        let authorizer = Authorizer { acl_enabled: true, default_allow: false };
        let now = Timestamp(self.time);
        let rules = authorizer.resolve(&self.store, secret(asker), now)?;
        let rules = authorizer.rules_of_question(&self.store, rules, &query, now)?;
        authorizer.authorize_query(&rules, query)
    }

    fn ask(&self, query: Query) -> Vec<String> {
        match self.authorize_query(query) {
            Ok(query) => show::answered(&self.store.answer(&query)),
            Err(refusal) => vec![format!("denied: {refusal}")],
        }
    }
}

fn secret(asker: &str) -> Option<[u8; 32]> {
    (asker != "anonymous").then(|| lookup(asker))
}

/// `merge`, `near=NODE`, `near=@ADDRESS` and, as the last of the line, `filter=EXPRESSION` choose among the rows of a question.
fn query_of(line: &str) -> Option<Query> {
    let (line, filter) = line.split_once(" filter=").unwrap_or((line, ""));
    let arguments = Arguments::new(line);
    let near = arguments.named.get("near").map(|node| match node.strip_prefix('@') {
        Some(address) => Near::Address(address.to_owned()),
        None => Near::Node((*node).to_owned()),
    });
    let query = plain_query_of(line)?;
    let merge = arguments.has("merge").then_some(Merge::CentralConfig);
    if filter.is_empty() && near.is_none() && merge.is_none() {
        return Some(query);
    }
    Some(Query::Selected(Box::new(Selection { query, filter: filter.to_owned(), near, merge })))
}

fn plain_query_of(line: &str) -> Option<Query> {
    if let Some(query) = prepared::query_of(line) {
        return Some(query);
    }
    let arguments = Arguments::new(line);
    if let Some(query) = config::query_of(&arguments, line) {
        return Some(query);
    }
    let first = arguments.word(1);
    let meta: BTreeMap<String, String> = arguments
        .named
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("meta.")?.to_owned(), (*value).to_owned())))
        .collect();
    let service = |name: &str| ServiceQuery {
        tags: arguments.list("tags"),
        node_meta: meta.clone(),
        passing: arguments.has("passing"),
        connect: arguments.has("connect"),
        ..ServiceQuery::all(name.parse().unwrap())
    };
    Some(match (arguments.word(0), first) {
        ("get", _) => Query::KvGet(first.into()),
        ("list", _) => Query::KvList(first.into()),
        ("keys", _) => Query::KvKeys(KeysQuery {
            prefix: first.into(),
            separator: arguments.named.get("separator").copied().unwrap_or("").into(),
        }),
        ("nodes", _) => Query::Nodes(meta),
        ("node", _) => Query::Node(first.parse().unwrap()),
        ("services", "on") => Query::NodeServices(arguments.word(2).parse().unwrap()),
        ("services", _) => Query::Services(meta),
        ("service", _) => Query::ServiceNodes(service(first)),
        ("health", _) => Query::HealthService(service(first)),
        ("checks", "on") => Query::HealthNode(arguments.word(2).parse().unwrap()),
        ("checks", "of") => Query::HealthChecks(service(arguments.word(2))),
        ("checks", _) => Query::HealthState(StateQuery { state: first.into(), node_meta: meta }),
        ("coordinates", "") => Query::Coordinates,
        ("coordinates", name) => Query::CoordinatesOf(name.parse().unwrap()),
        ("roots", _) => Query::CaRoots,
        ("ca-settings", _) => Query::AuthoritySettings,
        ("autopilot", "") => Query::Autopilot,
        ("intentions", "") => Query::Intentions,
        ("intentions", "from") => {
            Query::IntentionMatch(IntentionMatch { by_source: true, name: arguments.word(2).into() })
        }
        ("intentions", "to") => {
            Query::IntentionMatch(IntentionMatch { by_source: false, name: arguments.word(2).into() })
        }
        ("intention", _) => {
            Query::IntentionExact(IntentionQuery { source: first.into(), destination: arguments.word(2).into() })
        }
        ("entry", _) => Query::ServiceIntentions(first.into()),
        ("entries", _) => Query::ServiceIntentionsList,
        _ => return locks::query_of(&arguments, line),
    })
}

fn command_of(line: &str) -> Command {
    if let Some(command) = prepared::command_of(line).or_else(|| config::command_of(line)) {
        return command;
    }
    let arguments = Arguments::new(line);
    let first = arguments.word(1);
    let cas = arguments.number("cas").map(Index);
    match arguments.word(0) {
        "register" => Command::Register(serde_json::from_str(&line["register".len()..]).unwrap()),
        "deregister" => Command::Deregister(Deregistration {
            node: first.parse().unwrap(),
            service_id: arguments.named.get("service").map(|id| id.parse().unwrap()),
            check_id: arguments.named.get("check").map(|id| id.parse().unwrap()),
            authorized_service: arguments.named.get("seen").map(|name| (*name).to_owned()),
        }),
        "set" => kv(cas.map_or(KvVerb::Set, KvVerb::Cas), &arguments),
        "delete" => kv(cas.map_or(KvVerb::Delete, KvVerb::DeleteCas), &arguments),
        "delete-tree" => kv(KvVerb::DeleteTree, &arguments),
        "allow" | "deny" => Command::IntentionUpsert(IntentionUpsert {
            destination: arguments.word(3).into(),
            source: source(first, arguments.word(0)),
        }),
        "forget" => {
            Command::IntentionDelete(IntentionDelete { source: first.into(), destination: arguments.word(3).into() })
        }
        "set-entry" => Command::IntentionsSet(IntentionsSet {
            entry: serde_json::from_str(line["set-entry".len()..].split(" cas=").next().unwrap()).unwrap(),
            cas,
        }),
        "delete-entry" => Command::IntentionsDelete(IntentionsDelete { name: first.into(), cas }),
        "token" => Command::TokenSet(token(first, &arguments)),
        "delete-token" => Command::TokenDelete(accessor(first)),
        "join-token" => Command::JoinTokenSet(JoinToken {
            lookup: lookup(first),
            services: arguments.list("services"),
            reusable: arguments.has("reusable"),
            expiration_time: Timestamp(arguments.number("expires").unwrap() * 1000),
            node: arguments.named.get("node").map(|node| node.parse().unwrap()),
        }),
        "login" => Command::NodeLogin(Box::new(NodeLogin {
            token: Token { login_node: Some(arguments.word(3).into()), ..token(first, &arguments) },
            join_token: arguments.named.get("with").map(|secret| lookup(secret).into()),
            right: match arguments.word(4) {
                "named" => NameRight::Named,
                "proven" => NameRight::Proven,
                _ => NameRight::FirstCome,
            },
        })),
        "renew" => Command::LoginRenew(LoginRenewal {
            node: first.parse().unwrap(),
            expiration_time: Timestamp(arguments.number("expires").unwrap() * 1000),
        }),
        "ca-create" => Command::AuthorityInitialize(authority(first)),
        "ca-configure" => Command::AuthorityConfigure(AuthoritySettings {
            leaf_seconds: arguments.number("leaf").unwrap(),
            signatures_per_second: arguments.number("csr").unwrap_or(50) as u32,
            modify_index: Index(0),
        }),
        "use-join-token" => Command::JoinTokenUse(lookup(first)),
        // place NODE X: X milliseconds from the origin.
        "place" => Command::CoordinatesSet(vec![NodeCoordinate {
            node: first.parse().unwrap(),
            segment: String::new(),
            coord: at(arguments.word(2).parse::<f64>().unwrap() / 1000.0),
        }]),
        "claim" => Command::ServiceClaim(ServiceClaim { service: first.into(), namespace: arguments.word(3).into() }),
        "set-autopilot" => Command::AutopilotSet(AutopilotSet {
            config: AutopilotConfig {
                cleanup_dead_servers: !arguments.has("keep-dead"),
                min_quorum: arguments.number("quorum").unwrap_or(0),
                ..AutopilotConfig::default()
            },
            cas,
        }),
        other => locks::command_of(&arguments, line)
            .unwrap_or_else(|| panic!("{other:?} is neither a question nor a command")),
    }
}

fn at(first: f64) -> Coordinate {
    let mut coordinate = Coordinate::default();
    coordinate.vec[0] = first;
    coordinate
}

fn kv(verb: KvVerb, arguments: &Arguments<'_>) -> Command {
    Command::Kv(KvCommand {
        verb,
        key: arguments.word(1).into(),
        value: arguments.word(2).as_bytes().to_vec(),
        flags: arguments.number("flags").unwrap_or(0),
    })
}

fn source(name: &str, action: &str) -> SourceIntention {
    SourceIntention {
        name: name.into(),
        action: if action == "allow" { Action::Allow } else { Action::Deny },
        precedence: 0,
        kind: SourceIntention::consul_type(),
        description: String::new(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
    }
}

fn accessor(name: &str) -> String {
    if name == "anonymous" { ANONYMOUS_ACCESSOR.into() } else { format!("accessor-of-{name}") }
}

fn token(name: &str, arguments: &Arguments<'_>) -> Token {
    Token {
        accessor_id: accessor(name),
        lookup: lookup(arguments.named.get("secret").copied().unwrap_or(name)),
        sealed_secret: Vec::new(),
        description: String::new(),
        management: arguments.has("management"),
        service_identities: arguments.list("services"),
        node_identities: arguments.list("nodes"),
        create_time: Timestamp(0),
        expiration_time: arguments.number("expires").map(|seconds| Timestamp(seconds * 1000)),
        create_index: Index(0),
        modify_index: Index(0),
        login_node: arguments.named.get("login").map(|node| (*node).to_owned()),
        login_node_id: arguments.named.get("id").map(|id| (*id).to_owned()),
    }
}

fn authority(name: &str) -> AuthorityRecord {
    AuthorityRecord {
        trust_domain: format!("{name}.consul"),
        root: CaRoot {
            id: name.into(),
            name: name.into(),
            serial_number: 1,
            signing_key_id: String::new(),
            external_trust_domain: String::new(),
            not_before: String::new(),
            not_after: String::new(),
            root_cert: String::new(),
            intermediate_certs: None,
            active: true,
            private_key_type: "ec".into(),
            private_key_bits: 256,
            create_index: Index(0),
            modify_index: Index(0),
        },
        intermediate_pem: String::new(),
        sealed_root_key: Vec::new(),
        sealed_intermediate_key: Vec::new(),
        settings: None,
    }
}
