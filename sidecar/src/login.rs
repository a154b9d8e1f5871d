//! The agent's own certificate and token: the login, and the renewal afterwards.
//!
//! Invariants
//! - The private key is made here and never leaves the process.
//! - Renewal goes over the present certificate; only when that has expired, the proof is shown again.
//! - Attempts never stop and never hurry: the pause between them grows up to a limit.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lictor_agent::rpc::login::{self, LoginError};
use lictor_identity::{KeyedChain, MaterialError, RpcMaterial, SigningRequest, SpiffeId, TrustDomain, renewal_moment};
use lictor_runtime::transport::SharedTransport;
use lictor_runtime::{Clock, Rng};
use lictor_types::rpc::{Login, LoginGrant, LoginHello, Operation};
use lictor_types::{NodeName, ServiceName};

use crate::certificate::{shown, signed};
use crate::follow::{Asker, retry_pause};
use crate::settings::LoginToken;

/// The largest proof that is read: a ServiceAccount token has one or two thousand bytes.
const MAX_PROOF_BYTES: u64 = 64 * 1024;
/// The longest single wait for a renewal: after it the wall clock is read again, as machines sleep and clocks are set.
const CLOCK_STEP: Duration = Duration::from_secs(60);

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

/// Logs this sidecar in.
pub(crate) struct Session {
    pub(crate) transport: SharedTransport,
    pub(crate) material: Arc<RpcMaterial>,
    pub(crate) servers: Vec<String>,
    pub(crate) proof: LoginToken,
    pub(crate) node: NodeName,
    pub(crate) services: Vec<ServiceName>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
}

/// A login that was granted; the agent's certificate is in force.
pub(crate) struct Granted {
    pub(crate) grant: LoginGrant,
    pub(crate) trust_domain: TrustDomain,
    chain: KeyedChain,
}

impl Session {
    /// Logs in, however long it takes.
    pub(crate) async fn login(&self) -> Granted {
        let mut failures: u32 = 0;
        loop {
            let server = &self.servers[failures as usize % self.servers.len()];
            match self.attempt(server).await {
                Ok(granted) => {
                    tracing::info!(node = %self.node, server, datacenter = granted.grant.datacenter,
                        not_after = %shown(granted.chain.not_after()), "logged in");
                    return granted;
                }
                Err(error) => {
                    tracing::warn!(node = %self.node, server, %error, attempt = failures + 1, "cannot log in; trying again");
                    // A round over all servers is quick, the pause between rounds grows.
                    tokio::time::sleep(retry_pause(failures / self.servers.len() as u32, &*self.rng)).await;
                    failures = failures.saturating_add(1);
                }
            }
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
            Ok(Login { proof, node, services, csr: request.csr_pem.into_bytes() })
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

    /// Keeps the agent's certificate fresh, for ever.
    pub(crate) async fn keep(self, granted: Granted, asker: Asker) {
        let Granted { grant, mut chain, .. } = granted;
        loop {
            self.until_renewal(&chain).await;
            chain = self.renew(&grant, &chain, &asker).await;
            tracing::info!(node = %self.node, not_after = %shown(chain.not_after()), "renewed the agent's certificate");
        }
    }

    async fn until_renewal(&self, chain: &KeyedChain) {
        let moment = renewal_moment(chain.not_before(), chain.not_after(), self.rng.next_u64());
        loop {
            let left = moment.duration_since(self.clock.now()).unwrap_or_default();
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(CLOCK_STEP)).await;
        }
    }

    /// A new certificate, however long it takes.
    async fn renew(&self, grant: &LoginGrant, present: &KeyedChain, asker: &Asker) -> KeyedChain {
        let mut failures = 0;
        loop {
            if present.not_after() <= self.clock.now() {
                tracing::warn!(node = %self.node, "the agent's certificate has expired; logging in again");
                let granted = self.login().await;
                asker.token.store(Arc::new(granted.grant.token));
                return granted.chain;
            }
            match self.sign(grant, asker).await {
                Ok(chain) => return chain,
                Err(reason) => {
                    tracing::warn!(node = %self.node, reason, attempt = failures + 1,
                        "cannot renew the agent's certificate; trying again");
                    tokio::time::sleep(retry_pause(failures, &*self.rng)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    async fn sign(&self, grant: &LoginGrant, asker: &Asker) -> Result<KeyedChain, String> {
        let id = self.agent_id(&grant.trust_domain, &grant.datacenter)?;
        let request = SigningRequest::create(&id).map_err(|error| error.to_string())?;
        let operation = Operation::SignAgent(request.csr_pem.into_bytes());
        let signed = signed(asker, &id, operation).await.map_err(|error| error.to_string())?;
        self.take(&signed.chain_pem, &request.key_pem).map_err(|error| error.to_string())
    }
}

fn read_proof(token: &LoginToken) -> Result<String, AttemptError> {
    let path = match token {
        LoginToken::Secret(secret) => return Ok(secret.clone()),
        LoginToken::File(path) => path,
    };
    let wrong = |source: io::Error| AttemptError::Proof { path: path.display().to_string(), source };
    let length = std::fs::metadata(path).map_err(wrong)?.len();
    if length > MAX_PROOF_BYTES {
        return Err(wrong(io::Error::other(format!("it has {length} bytes; at most {MAX_PROOF_BYTES} are read"))));
    }
    let proof = std::fs::read_to_string(path).map_err(wrong)?.trim().to_owned();
    if proof.is_empty() {
        return Err(wrong(io::Error::other("it is empty")));
    }
    Ok(proof)
}
