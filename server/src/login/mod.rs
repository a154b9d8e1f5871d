//! `login/1`: how a client agent or a sidecar gets its first certificate.
//!
//! The one protocol that takes no client certificate. The server says its trust domain; the client sends a proof and a
//! signing request; the reply carries an ACL token that may be what was asked for, the certificate, and the CA's roots.
//! The proof is a Kubernetes ServiceAccount token or the secret of a join token.
//!
//! Invariants
//! - A login gets the name of a node only if that is free, its own, or given to it by its proof; never a server's.
//! - A login uses its join token up and gets its token in one command, or does neither.

pub mod kubernetes;
mod review;

use std::time::Duration;

use lictor_agent::rpc::login;
use lictor_runtime::Stream;
use lictor_state::access::Duty;
use lictor_types::command::{Effect, LoginRenewal, NameRight, NodeLogin};
use lictor_types::rpc::{Credential, Login, LoginGrant, LoginHello, LoginReply, Operation, Report};
use lictor_types::{Command, Index, NodeName, Refusal, ServiceName, Timestamp, Token};

use crate::datacenter::ServerDatacenter;
use crate::leader::establish::seal_secret;

pub use kubernetes::KubernetesLogin;

/// The whole exchange, the token review included.
const LOGIN_LIMIT: Duration = Duration::from_secs(15);

/// How proofs are judged.
#[derive(Default)]
pub struct LoginMethods {
    /// Kubernetes ServiceAccount tokens, if configured.
    pub kubernetes: Option<KubernetesLogin>,
}

/// Serves one login connection.
pub(crate) async fn serve(datacenter: &ServerDatacenter, address: &str, mut stream: Stream) {
    let exchange = async {
        let hello = LoginHello {
            trust_domain: datacenter.trust_domain().map(|domain| domain.to_string()).unwrap_or_default(),
            datacenter: datacenter.settings.datacenter.clone(),
        };
        login::write_frame(&mut stream, &hello).await?;
        let request: Login = login::read_frame(&mut stream).await?;
        let node = request.node.clone();
        let operation = Operation::Login(Box::new(request));
        let reply = match datacenter.operate_anywhere(&Credential::anonymous(), operation).await {
            Ok(Report::Granted(grant)) => LoginReply::Granted(*grant),
            Ok(other) => LoginReply::Refused(Refusal::failed(format!("a login was answered with {other:?}"))),
            Err(refusal) => {
                tracing::warn!(%address, %node, %refusal, "login refused");
                LoginReply::Refused(refusal)
            }
        };
        login::write_frame(&mut stream, &reply).await
    };
    match tokio::time::timeout(LOGIN_LIMIT, exchange).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%address, %error, "login connection ended early"),
        Err(_) => tracing::warn!(%address, seconds = LOGIN_LIMIT.as_secs(), "login took too long"),
    }
}

/// What a proof is worth.
struct Judged {
    services: Vec<ServiceName>,
    right: NameRight,
    /// HMAC of the join token, which the login uses up.
    join_token: Option<[u8; 32]>,
}

/// Judges a login and grants it; on the leader.
pub(crate) async fn grant(datacenter: &ServerDatacenter, request: &Login) -> Result<LoginGrant, Refusal> {
    let judged = match &datacenter.logins.kubernetes {
        Some(kubernetes) if kubernetes::looks_like_token(&request.proof) => {
            let granted = kubernetes.review(request).await?;
            for claim in &granted.claims {
                applied(datacenter, Command::ServiceClaim(claim.clone())).await?;
            }
            Judged { services: granted.names, right: NameRight::Proven, join_token: None }
        }
        _ => judge_join_token(datacenter, request).await?,
    };
    // The state knows who has a name; who is alive this moment, only the members do.
    let id = request.node_id.as_deref().unwrap_or_default();
    datacenter.members.may_log_in(&request.node, id, judged.right)?;
    refuse_servers_name(datacenter, request)?;
    // The certificate first: if it cannot be signed, no token is left behind.
    let leaf = datacenter.sign_for_node(request.node.as_str(), &request.csr)?;
    let token = let_in(datacenter, request, judged, leaf.valid_before).await?;
    let store = datacenter.published.load();
    let authority = store.authority().ok_or_else(|| Refusal::failed("the mesh CA does not exist yet"))?;
    Ok(LoginGrant {
        token,
        chain_pem: leaf.chain_pem,
        roots_pem: authority.root.root_cert.clone(),
        trust_domain: authority.trust_domain.clone(),
        datacenter: datacenter.settings.datacenter.clone(),
        servers: datacenter.servers(),
        default_intention_allow: datacenter.settings.default_intention_allow,
    })
}

/// A server that has just joined is in raft before it is in the catalog.
fn refuse_servers_name(datacenter: &ServerDatacenter, request: &Login) -> Result<(), Refusal> {
    if datacenter.servers().iter().any(|server| server.name.key() == request.node.key()) {
        return Err(Refusal::permission_denied(format!(
            "the node name {:?} is a server's: give this agent another name with -node",
            request.node.as_str()
        )));
    }
    Ok(())
}

/// The certificate of `node` was renewed: the token of its login lives as long as the new one. On the leader.
///
/// # Errors
/// `ACL not found` when the node has no such token any more, so that it logs in anew.
pub(crate) async fn renew(datacenter: &ServerDatacenter, node: NodeName) -> Result<(), Refusal> {
    let expiration_time = Timestamp::from(datacenter.clock.now()).after(datacenter.settings.agent_lifetime);
    applied(datacenter, Command::LoginRenew(LoginRenewal { node, expiration_time })).await
}

/// What a join token is worth. It is used up with the login itself, in one command.
async fn judge_join_token(datacenter: &ServerDatacenter, request: &Login) -> Result<Judged, Refusal> {
    let lookup = datacenter.seal.token_lookup(&request.proof);
    let unknown = || {
        Refusal::permission_denied(
            "this join token is not known, was used already, or is over; make another with: lictor join-token create",
        )
    };
    datacenter.fresh().await?;
    let now = Timestamp::from(datacenter.clock.now());
    let token = datacenter.published.load().join_token(&lookup).cloned().filter(|it| it.expiration_time > now);
    let token = token.ok_or_else(unknown)?;
    if let Some(service) =
        request.services.iter().find(|it| !token.reusable && !token.services.iter().any(|one| one == it.as_str()))
    {
        return Err(Refusal::permission_denied(format!(
            "this join token does not give the service {service:?}; it gives {:?}",
            token.services
        )));
    }
    let right = if token.node.is_some() { NameRight::Named } else { NameRight::FirstCome };
    Ok(Judged { services: request.services.clone(), right, join_token: Some(lookup) })
}

/// Makes the token of a login; refused when the name is another's, or the join token was used meanwhile.
async fn let_in(
    datacenter: &ServerDatacenter,
    request: &Login,
    judged: Judged,
    until: Timestamp,
) -> Result<Credential, Refusal> {
    let secret = datacenter.rng.uuid();
    let token = Token {
        accessor_id: datacenter.rng.uuid(),
        lookup: datacenter.seal.token_lookup(&secret),
        sealed_secret: seal_secret(datacenter, &secret)?,
        description: format!("token created via login of {}", request.node),
        management: false,
        service_identities: judged.services.iter().map(ToString::to_string).collect(),
        node_identities: vec![request.node.to_string()],
        create_time: Timestamp::from(datacenter.clock.now()),
        // It lives as long as the certificate that came with it, and every renewal of that one moves it on.
        expiration_time: Some(until),
        create_index: Index(0),
        modify_index: Index(0),
        login_node: Some(request.node.to_string()),
        login_node_id: request.node_id.clone().filter(|id| !id.is_empty()),
    };
    let login = NodeLogin { token, join_token: judged.join_token.map(Into::into), right: judged.right };
    applied(datacenter, Command::NodeLogin(Box::new(login))).await?;
    Ok(Credential::new(secret))
}

async fn applied(datacenter: &ServerDatacenter, command: Command) -> Result<(), Refusal> {
    match datacenter.write_as(Duty::Login, command).await?.effect {
        Effect::Applied | Effect::NotApplied | Effect::Transaction(_) | Effect::Unassigned(_) => Ok(()),
        Effect::Refused(refusal) => Err(refusal),
    }
}
