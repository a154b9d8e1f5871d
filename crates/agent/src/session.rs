//! A client's way in: the login, and the renewal of its certificate afterwards.
//!
//! Invariants
//! - The private key is made here and never leaves the process.
//! - Renewal goes over the present certificate; only when that has expired, the proof is shown again.
//! - Attempts never stop and never hurry: the pause between them grows up to a limit.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lictor_identity::{KeyedChain, MaterialError, RpcMaterial, SigningRequest, SpiffeId, TrustDomain, renewal_moment};
use lictor_runtime::transport::SharedTransport;
use lictor_runtime::{Clock, RetryPause, Rng};
use lictor_types::rpc::{Login, LoginGrant, LoginHello, Operation, Report};
use lictor_types::{Credential, NodeName, Refusal, ServiceName, Timestamp};

use crate::datacenter::SharedDatacenter;
use crate::rpc::login::{self, LoginError};

/// The largest proof that is read: a ServiceAccount token has one or two thousand bytes.
const PROOF_BYTES_MAX: u64 = 64 * 1024;
/// The longest single wait for a renewal: after it the wall clock is read again, as machines sleep and clocks are set.
const CLOCK_STEP: Duration = Duration::from_secs(60);
/// The pauses between rounds over all servers.
const RETRY: RetryPause = RetryPause { shortest: Duration::from_millis(100), longest: Duration::from_secs(15) };
/// Between two looks for a server where none is known.
const NOBODY_PAUSE: Duration = Duration::from_millis(250);
/// How long a signature may take.
const SIGN_LIMIT: Duration = Duration::from_secs(15);

/// What a client shows for its first certificate.
#[derive(Clone)]
pub enum Proof {
    /// A file, read anew at each login: Kubernetes replaces it before it expires.
    File(PathBuf),
    /// The proof itself.
    Secret(String),
}

impl fmt::Debug for Proof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => formatter.debug_tuple("File").field(path).finish(),
            Self::Secret(_) => formatter.write_str("Secret(<hidden>)"),
        }
    }
}

/// Why an attempt to log in failed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    /// The proof is not there.
    #[error("cannot read the login token {path}: {source}")]
    Proof {
        /// Where it should be.
        path: String,
        /// What happened.
        source: io::Error,
    },
    /// The servers did not let us in.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// What came back cannot be used.
    #[error("the agent's certificate cannot be used: {0}")]
    Unusable(#[from] MaterialError),
    /// The trust domain in the grant is none.
    #[error("the servers' trust domain cannot be used: {0}")]
    TrustDomain(#[from] lictor_identity::SpiffeError),
}

/// Logs a client in.
pub struct Session {
    /// Dials servers.
    pub transport: SharedTransport,
    /// Gets the certificate, for every connection from then on.
    pub material: Arc<RpcMaterial>,
    /// `host:port` of the servers that are known at the time; nobody until one is found.
    pub servers: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// What is shown.
    pub proof: Proof,
    /// The node to be.
    pub node: NodeName,
    /// Its id: with it the servers know a node that comes back.
    pub node_id: String,
    /// Whoever keeps the session asks with the token of the login: when that is gone, for example because the node was
    /// deregistered while it could not be reached, the session logs in again.
    pub watches_token: bool,
    /// The services to be.
    pub services: Vec<ServiceName>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
}

/// A login that was granted; the agent's certificate is in force.
pub struct Granted {
    /// What the servers granted.
    pub grant: LoginGrant,
    /// The trust domain in it.
    pub trust_domain: TrustDomain,
    chain: KeyedChain,
}

impl Session {
    /// Logs in, however long it takes.
    pub async fn login(&self) -> Granted {
        let mut failures: u32 = 0;
        loop {
            let servers = (self.servers)();
            let Some(server) = servers.get(failures as usize % servers.len().max(1)) else {
                tokio::time::sleep(NOBODY_PAUSE).await;
                continue;
            };
            match self.attempt(server).await {
                Ok(granted) => {
                    tracing::info!(node = %self.node, server, datacenter = granted.grant.datacenter,
                        not_after = %shown(&granted.chain), "logged in");
                    return granted;
                }
                Err(error) => {
                    tracing::warn!(node = %self.node, server, %error, attempt = failures + 1, "cannot log in; trying again");
                    // A round over all servers is quick, the pause between rounds grows.
                    tokio::time::sleep(RETRY.after(failures / servers.len() as u32, &*self.rng)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    /// Keeps the certificate fresh, for ever. A new login hands its token to `relogged`.
    pub async fn keep(
        self,
        granted: Granted,
        datacenter: SharedDatacenter,
        credential: impl Fn() -> Credential + Send + Sync,
        relogged: impl Fn(Credential) + Send + Sync,
    ) {
        let Granted { grant, mut chain, .. } = granted;
        loop {
            if self.until_renewal(&chain, &datacenter, &credential).await == Due::Renewal {
                chain = self.renew(&grant, &chain, &datacenter, &credential, &relogged).await;
            } else {
                tracing::warn!(node = %self.node, "the servers no longer know the token of this login; logging in again");
                chain = self.login_again(&relogged).await;
            }
            tracing::info!(node = %self.node, not_after = %shown(&chain), "renewed the agent's certificate");
        }
    }

    async fn attempt(&self, server: &str) -> Result<Granted, AttemptError> {
        let proof = read_proof(&self.proof)?;
        let mut key_pem = None;
        let ask = |hello: &LoginHello| {
            let id = self.agent_id(&hello.trust_domain, &hello.datacenter)?;
            let request = SigningRequest::create(&id).map_err(|error| error.to_string())?;
            key_pem = Some(request.key_pem);
            let (node, services) = (self.node.clone(), self.services.clone());
            let node_id = Some(self.node_id.clone());
            Ok(Login { proof, node, services, csr: request.csr_pem.into_bytes(), node_id })
        };
        let grant = login::login(&*self.transport, server, ask).await?;
        let key_pem = key_pem.ok_or_else(|| LoginError::Request("the server granted what was not asked for".into()))?;
        let chain = self.take(&grant.chain_pem, &key_pem)?;
        Ok(Granted { trust_domain: grant.trust_domain.parse()?, grant, chain })
    }

    fn agent_id(&self, trust_domain: &str, datacenter: &str) -> Result<SpiffeId, String> {
        let trust_domain: TrustDomain = trust_domain.parse().map_err(|error| format!("{error}"))?;
        SpiffeId::client(&trust_domain, datacenter, self.node.as_str()).map_err(|error| error.to_string())
    }

    /// Puts a certificate in force.
    fn take(&self, chain_pem: &str, key_pem: &str) -> Result<KeyedChain, MaterialError> {
        let chain = KeyedChain::from_pem(chain_pem, key_pem)?;
        chain.check_validity(self.clock.now())?;
        self.material.set_own(chain.clone());
        Ok(chain)
    }

    async fn until_renewal(
        &self,
        chain: &KeyedChain,
        datacenter: &SharedDatacenter,
        credential: &(impl Fn() -> Credential + Sync),
    ) -> Due {
        let moment = renewal_moment(chain.not_before(), chain.not_after(), self.rng.next_u64());
        loop {
            let left = moment.duration_since(self.clock.now()).unwrap_or_default();
            if left.is_zero() {
                return Due::Renewal;
            }
            tokio::time::sleep(left.min(CLOCK_STEP)).await;
            if self.watches_token && is_lost(datacenter, &credential()).await {
                return Due::Login;
            }
        }
    }

    /// A new login, whose token takes the place of the old one.
    async fn login_again(&self, relogged: &(impl Fn(Credential) + Sync)) -> KeyedChain {
        let granted = self.login().await;
        relogged(granted.grant.token);
        granted.chain
    }

    /// A new certificate, however long it takes.
    async fn renew(
        &self,
        grant: &LoginGrant,
        present: &KeyedChain,
        datacenter: &SharedDatacenter,
        credential: &(impl Fn() -> Credential + Sync),
        relogged: &(impl Fn(Credential) + Sync),
    ) -> KeyedChain {
        let mut failures = 0;
        loop {
            if present.not_after() <= self.clock.now() {
                tracing::warn!(node = %self.node, "the agent's certificate has expired; logging in again");
                return self.login_again(relogged).await;
            }
            match self.sign(grant, datacenter, &credential()).await {
                Ok(chain) => return chain,
                Err(reason) if is_not_found(&reason) => {
                    tracing::warn!(node = %self.node, "the servers no longer know this login; logging in again");
                    return self.login_again(relogged).await;
                }
                Err(reason) => {
                    tracing::warn!(node = %self.node, reason, attempt = failures + 1,
                        "cannot renew the agent's certificate; trying again");
                    tokio::time::sleep(RETRY.after(failures, &*self.rng)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    async fn sign(
        &self,
        grant: &LoginGrant,
        datacenter: &SharedDatacenter,
        credential: &Credential,
    ) -> Result<KeyedChain, String> {
        let id = self.agent_id(&grant.trust_domain, &grant.datacenter)?;
        let request = SigningRequest::create(&id).map_err(|error| error.to_string())?;
        let operation = Operation::SignAgent(request.csr_pem.into_bytes());
        let answer = tokio::time::timeout(SIGN_LIMIT, datacenter.operate(credential, operation))
            .await
            .map_err(|_| format!("no server signed within {SIGN_LIMIT:?}"))?;
        match answer {
            Ok(Report::Leaf(signed)) => {
                self.take(&signed.chain_pem, &request.key_pem).map_err(|error| error.to_string())
            }
            Ok(_) => Err("the servers answered with something else than a certificate".into()),
            Err(refusal) => Err(refusal.to_string()),
        }
    }
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The certificate is old enough.
    Renewal,
    /// The token is gone.
    Login,
}

/// Whether the servers answer that they do not know this token. One that does not answer says nothing.
async fn is_lost(datacenter: &SharedDatacenter, credential: &Credential) -> bool {
    let asked = datacenter.operate(credential, Operation::Authorize(Vec::new()));
    match tokio::time::timeout(SIGN_LIMIT, asked).await {
        Ok(Err(refusal)) => is_not_found(&refusal.text),
        Ok(Ok(_)) | Err(_) => false,
    }
}

/// Whether a refusal says that a token is not known; a client agent's has a prefix.
fn is_not_found(text: &str) -> bool {
    text.ends_with(&Refusal::acl_not_found().text)
}

fn shown(chain: &KeyedChain) -> String {
    Timestamp::from(chain.not_after()).to_rfc3339()
}

fn read_proof(proof: &Proof) -> Result<String, AttemptError> {
    let path = match proof {
        Proof::Secret(secret) => return Ok(secret.clone()),
        Proof::File(path) => path,
    };
    let wrong = |source: io::Error| AttemptError::Proof { path: path.display().to_string(), source };
    let length = std::fs::metadata(path).map_err(wrong)?.len();
    if length > PROOF_BYTES_MAX {
        return Err(wrong(io::Error::other(format!("it has {length} bytes; at most {PROOF_BYTES_MAX} are read"))));
    }
    let proof = std::fs::read_to_string(path).map_err(wrong)?.trim().to_owned();
    if proof.is_empty() {
        return Err(wrong(io::Error::other("it is empty")));
    }
    Ok(proof)
}
