//! The leaf certificate of a service: asked for here, signed by the servers, renewed in time.
//!
//! Invariants
//! - The private key is made here and never leaves the process.
//! - A new credential is published only when it is whole and for the right service; until then the old one stays.
//! - Renewal is spread over 60 % to 90 % of the life and over [`ROOT_SPREAD`] after a change of roots, so that the sidecars
//!   of a datacenter do not ask all at once.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lictor_identity::{
    AuthorityError, Credential, CredentialsPublisher, MaterialError, SigningRequest, SpiffeId, renewal_moment,
};
use lictor_runtime::Clock;
use lictor_types::rpc::{Operation, Report, SignLeaf};
use lictor_types::{Answer, CaRoots, Consistency, LeafCertificate, Query, Read, Refusal, ServiceName};
use tokio::sync::watch;

use crate::follow::{Asker, retry_pause};

/// How long signing may take.
const SIGN_LIMIT: Duration = Duration::from_secs(15);
/// The time over which renewals are spread after a change of roots; Consul's default.
const ROOT_SPREAD: Duration = Duration::from_secs(30);
/// The longest single wait for a renewal: after it the wall clock is read again, as machines sleep and clocks are set.
const CLOCK_STEP: Duration = Duration::from_secs(60);

/// Why there is no new leaf.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeafError {
    /// The servers do not sign, now or at all.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The servers do not answer.
    #[error("no answer within {} s", SIGN_LIMIT.as_secs())]
    TimedOut,
    /// The request could not be made.
    #[error("cannot make a signing request: {0}")]
    Request(#[from] AuthorityError),
    /// What came back is not what was asked for.
    #[error("the servers answered something else than a certificate for {0}")]
    NotTheLeaf(SpiffeId),
    /// What came back cannot be used.
    #[error("the certificate or the roots cannot be used: {0}")]
    Unusable(#[from] MaterialError),
}

/// The roots of the mesh; `None` until the servers have told them.
pub(crate) type Roots = watch::Receiver<Option<Arc<CaRoots>>>;

/// Keeps the roots up to date, for ever.
pub(crate) async fn keep_roots(asker: Asker, publisher: watch::Sender<Option<Arc<CaRoots>>>) {
    asker
        .follow("mesh roots", Query::CaRoots, Consistency::Default, |Read { answer, .. }| match answer {
            Answer::CaRoots(Some(roots)) => {
                publisher.send_if_modified(|known| {
                    // The index of other tables wakes us too; only other roots are news.
                    let news = known.as_deref() != Some(&roots);
                    if news {
                        *known = Some(Arc::new(roots));
                    }
                    news
                });
            }
            Answer::CaRoots(None) => tracing::info!("the mesh has no certificate authority yet"),
            _ => tracing::error!("a server answered something else than roots"),
        })
        .await;
}

/// PEM of every root that is trusted.
fn roots_pem(roots: &CaRoots) -> String {
    roots.roots.iter().map(|root| format!("{}\n", root.root_cert.trim_end())).collect()
}

/// The leaf of one service.
pub(crate) struct Leaf {
    pub(crate) service: ServiceName,
    pub(crate) id: SpiffeId,
    pub(crate) asker: Asker,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) roots: Roots,
    pub(crate) publisher: CredentialsPublisher,
}

impl Leaf {
    /// Gets the leaf and keeps it fresh, for ever.
    pub(crate) async fn keep(mut self) {
        let mut failures = 0;
        let mut current: Option<Credential> = None;
        loop {
            let roots = self.known_roots().await;
            match self.sign(&roots).await {
                Ok(credential) => {
                    failures = 0;
                    tracing::info!(service = %self.service, not_after = %shown(credential.chain().not_after()),
                        "have a leaf certificate");
                    self.publisher.publish(credential.clone());
                    current = Some(credential);
                }
                Err(error) => {
                    let valid = current.as_ref().is_some_and(|kept| kept.chain().not_after() > self.clock.now());
                    tracing::warn!(service = %self.service, %error, attempt = failures + 1, still_valid = valid,
                        "cannot get a leaf certificate; trying again");
                    tokio::time::sleep(retry_pause(failures, &*self.asker.rng)).await;
                    failures = failures.saturating_add(1);
                    continue;
                }
            }
            if let Some(kept) = &mut current {
                self.until_renewal(kept).await;
            }
        }
    }

    async fn known_roots(&mut self) -> Arc<CaRoots> {
        match self.roots.wait_for(Option::is_some).await.ok().and_then(|roots| roots.clone()) {
            Some(roots) => roots,
            // Whoever tells us the roots is gone: the sidecar is stopping.
            None => std::future::pending().await,
        }
    }

    /// Waits for the moment to renew; puts changed roots in force while it waits.
    async fn until_renewal(&mut self, kept: &mut Credential) {
        let chain = kept.chain();
        let mut moment = renewal_moment(chain.not_before(), chain.not_after(), self.asker.rng.next_u64());
        self.roots.mark_unchanged();
        loop {
            let now = self.clock.now();
            let left = moment.duration_since(now).unwrap_or_default();
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(CLOCK_STEP)) => {}
                changed = self.roots.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                    let roots = self.known_roots().await;
                    // New roots are trusted at once, so that nobody is refused; the new leaf may take its time.
                    match kept.with_roots(&roots_pem(&roots)) {
                        Ok(credential) => {
                            self.publisher.publish(credential.clone());
                            *kept = credential;
                        }
                        Err(error) => tracing::error!(%error, "the new mesh roots cannot be used; keeping the old"),
                    }
                    let spread = self.asker.rng.below(ROOT_SPREAD.as_millis() as u64);
                    moment = moment.min(now + Duration::from_millis(spread));
                    tracing::info!(service = %self.service, "the mesh has new roots; renewing the leaf soon");
                }
            }
        }
    }

    async fn sign(&self, roots: &CaRoots) -> Result<Credential, LeafError> {
        let request = SigningRequest::create(&self.id)?;
        let operation =
            Operation::SignLeaf(SignLeaf { service: self.service.clone(), csr: request.csr_pem.clone().into_bytes() });
        let leaf = signed(&self.asker, &self.id, operation).await?;
        let credential = Credential::from_pem(&leaf.chain_pem, &request.key_pem, &roots_pem(roots), self.clock.now())?;
        if *credential.id() != self.id {
            return Err(LeafError::NotTheLeaf(self.id.clone()));
        }
        Ok(credential)
    }
}

/// Has a certificate for `id` signed.
pub(crate) async fn signed(asker: &Asker, id: &SpiffeId, operation: Operation) -> Result<LeafCertificate, LeafError> {
    let token = asker.token();
    let answer = tokio::time::timeout(SIGN_LIMIT, asker.datacenter.operate(&token, operation));
    match answer.await.map_err(|_| LeafError::TimedOut)?? {
        Report::Leaf(leaf) => Ok(leaf),
        _ => Err(LeafError::NotTheLeaf(id.clone())),
    }
}

/// A moment for people.
pub(crate) fn shown(moment: SystemTime) -> String {
    lictor_types::index::Timestamp::from(moment).to_rfc3339()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::double::{LIMIT, Servers, spiffe_id};
    use lictor_identity::Credentials;
    use lictor_runtime::Tasks;

    /// Keeps the leaf of `web`.
    fn keep(servers: &Arc<Servers>, tasks: &Tasks) -> Credentials {
        let (publisher, credentials) = Credentials::closed();
        let (roots_publisher, roots) = watch::channel(None);
        let leaf = Leaf {
            service: "web".parse().unwrap(),
            id: spiffe_id("web"),
            asker: servers.asker(),
            clock: servers.clock(),
            roots,
            publisher,
        };
        tasks.spawn(keep_roots(servers.asker(), roots_publisher));
        tasks.spawn(leaf.keep());
        credentials
    }

    async fn next(credentials: &mut Credentials, limit: Duration) -> Arc<Credential> {
        assert!(tokio::time::timeout(limit, credentials.changed()).await.expect("it is renewed"));
        credentials.current().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_leaf_is_asked_for_until_it_is_signed() {
        let (servers, tasks) = (Servers::new(), Tasks::new());
        servers.refuse_signatures(5);
        let credential = next(&mut keep(&servers, &tasks), LIMIT).await;
        assert_eq!(*credential.id(), spiffe_id("web"));
        assert_eq!(servers.operations().len(), 6);
        assert!(tasks.stop(LIMIT).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leaf_is_renewed_with_a_new_key_between_60_and_90_percent_of_its_life() {
        let (servers, tasks) = (Servers::new(), Tasks::new());
        let mut credentials = keep(&servers, &tasks);
        for _ in 0..5 {
            let first = next(&mut credentials, Duration::from_secs(3600)).await;
            let (begin, end) = (first.chain().not_before(), first.chain().not_after());
            let second = next(&mut credentials, Duration::from_secs(3600)).await;
            let (now, life) = (servers.clock().now(), end.duration_since(begin).unwrap());
            assert!(
                now >= begin + life * 60 / 100 && now <= begin + life * 90 / 100,
                "{now:?} of {begin:?} to {end:?}"
            );
            assert_ne!(first.chain().certificates(), second.chain().certificates());
        }
        assert!(tasks.stop(LIMIT).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leaf_that_cannot_be_renewed_stays_in_force_and_is_renewed_when_the_servers_are_back() {
        let (servers, tasks) = (Servers::new(), Tasks::new());
        let mut credentials = keep(&servers, &tasks);
        let first = next(&mut credentials, LIMIT).await;
        servers.set_away(true);
        let two_hours = tokio::time::timeout(Duration::from_secs(7200), credentials.changed());
        assert!(two_hours.await.is_err(), "nothing is published while nobody signs");
        assert!(Arc::ptr_eq(&credentials.current().unwrap(), &first));
        servers.set_away(false);
        let second = next(&mut credentials, LIMIT).await;
        assert!(second.chain().not_after() > servers.clock().now());
        assert!(tasks.stop(LIMIT).await);
    }

    #[tokio::test(start_paused = true)]
    async fn new_roots_are_trusted_at_once_and_the_leaf_follows() {
        let (servers, tasks) = (Servers::new(), Tasks::new());
        let mut credentials = keep(&servers, &tasks);
        let first = next(&mut credentials, LIMIT).await;
        servers.rotate();
        let second = next(&mut credentials, Duration::from_secs(1)).await;
        assert_eq!(first.chain().certificates(), second.chain().certificates(), "only the roots have changed yet");
        let third = next(&mut credentials, ROOT_SPREAD + LIMIT).await;
        assert_ne!(third.chain().certificates(), first.chain().certificates());
        assert!(tasks.stop(LIMIT).await);
    }
}
