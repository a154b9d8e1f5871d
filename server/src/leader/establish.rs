//! What a cluster must have before anything else, made by its first leader and never again.

use lictor_identity::facts::certificate_facts;
use lictor_identity::mesh_authority::MeshAuthority;
use lictor_identity::spiffe::TrustDomain;
use lictor_state::access::Duty;
use lictor_types::authority::{AuthorityRecord, CaRoot};
use lictor_types::command::{ClusterIdentity, Effect};
use lictor_types::token::JoinToken;
use lictor_types::{Command, Index, Refusal, Timestamp, Token};

use crate::datacenter::ServerDatacenter;
use crate::leader::{RETRY_INTERVAL, membership};
use crate::operations::{SEAL_CONTEXT_INTERMEDIATE, SEAL_CONTEXT_ROOT, SEAL_CONTEXT_TOKEN};

/// What the configuration wants to be there from the start.
#[derive(Default)]
pub struct Founding {
    /// Secret of the first management token (`acl.tokens.initial_management`).
    pub initial_management: Option<String>,
    /// Secret of the join token that members on one loopback share.
    pub loopback_join_token: Option<String>,
    /// A mesh CA that was made elsewhere. Without it a new one is made, whose keys come from the operating system and not
    /// from a seed.
    pub mesh_authority: Option<AuthorityRecord>,
}

/// Tries until all is there.
pub(crate) async fn until_done(datacenter: &ServerDatacenter, founding: &Founding) {
    loop {
        match establish(datacenter, founding).await {
            Ok(()) => return,
            Err(refusal) => tracing::warn!(%refusal, "could not found the cluster yet"),
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn establish(datacenter: &ServerDatacenter, founding: &Founding) -> Result<(), Refusal> {
    datacenter.fresh().await?;
    let now = Timestamp::from(datacenter.clock.now());
    if datacenter.published.load().cluster().is_none() {
        let identity =
            ClusterIdentity { cluster_id: datacenter.rng.uuid(), seal_key_id: datacenter.seal.id().to_owned() };
        write(datacenter, Command::ClusterInitialize(identity)).await?;
    }
    if datacenter.published.load().authority().is_none() {
        let record = match &founding.mesh_authority {
            Some(made) => made.clone(),
            None => new_authority(datacenter)?,
        };
        write(datacenter, Command::AuthorityInitialize(record)).await?;
    }
    membership::establish(datacenter).await?;
    if let Some(secret) = &founding.initial_management {
        let lookup = datacenter.seal.token_lookup(secret);
        if datacenter.published.load().token(&lookup).is_none() {
            let token = Token {
                accessor_id: datacenter.rng.uuid(),
                lookup,
                sealed_secret: seal_secret(datacenter, secret)?,
                description: "Initial Management Token".into(),
                management: true,
                service_identities: Vec::new(),
                node_identities: Vec::new(),
                create_time: now,
                expiration_time: None,
                create_index: Index(0),
                modify_index: Index(0),
                login_node: None,
                login_node_id: None,
            };
            write(datacenter, Command::TokenSet(token)).await?;
        }
    }
    if let Some(secret) = &founding.loopback_join_token {
        let token = JoinToken {
            lookup: datacenter.seal.token_lookup(secret),
            services: Vec::new(),
            reusable: true,
            expiration_time: Timestamp(u64::MAX),
            node: None,
        };
        if datacenter.published.load().join_token(&token.lookup).is_none() {
            write(datacenter, Command::JoinTokenSet(token)).await?;
        }
    }
    Ok(())
}

async fn write(datacenter: &ServerDatacenter, command: Command) -> Result<(), Refusal> {
    match datacenter.write_as(Duty::Initialize, command).await?.effect {
        Effect::Applied | Effect::NotApplied | Effect::Transaction(_) | Effect::Unassigned(_) => Ok(()),
        Effect::Refused(refusal) => Err(refusal),
    }
}

/// Seals a token's secret for the state.
pub(crate) fn seal_secret(datacenter: &ServerDatacenter, secret: &str) -> Result<Vec<u8>, Refusal> {
    datacenter
        .seal
        .seal(secret.as_bytes(), SEAL_CONTEXT_TOKEN)
        .map_err(|error| Refusal::failed(format!("cannot seal a token: {error}")))
}

fn new_authority(datacenter: &ServerDatacenter) -> Result<AuthorityRecord, Refusal> {
    let store = datacenter.published.load();
    let cluster = store.cluster().ok_or_else(|| Refusal::failed("the cluster has no id yet"))?;
    let trust_domain: TrustDomain = format!("{}.consul", cluster.cluster_id)
        .parse()
        .map_err(|error| Refusal::failed(format!("cannot name the trust domain: {error}")))?;
    let failed = |error: &dyn std::fmt::Display| Refusal::failed(format!("cannot make the mesh CA: {error}"));
    let authority = MeshAuthority::create(
        trust_domain.clone(),
        &datacenter.settings.datacenter,
        datacenter.clock.now(),
        &*datacenter.rng,
    )
    .map_err(|error| failed(&error))?;
    let parts = authority.to_parts();
    let root = certificate_facts(&parts.root_certificate_pem).map_err(|error| failed(&error))?;
    let signing = certificate_facts(&parts.intermediate_certificate_pem).map_err(|error| failed(&error))?;
    let seal =
        |key: &str, context: &[u8]| datacenter.seal.seal(key.as_bytes(), context).map_err(|error| failed(&error));
    Ok(AuthorityRecord {
        trust_domain: trust_domain.to_string(),
        root: CaRoot {
            id: root.fingerprint,
            name: "Lictor mesh CA root".into(),
            serial_number: root.serial_number,
            signing_key_id: signing.key_id,
            external_trust_domain: String::new(),
            not_before: Timestamp::from(root.not_before).to_rfc3339(),
            not_after: Timestamp::from(root.not_after).to_rfc3339(),
            root_cert: parts.root_certificate_pem.clone(),
            intermediate_certs: Some(vec![parts.intermediate_certificate_pem.clone()]),
            active: true,
            private_key_type: "ec".into(),
            private_key_bits: 256,
            create_index: Index(0),
            modify_index: Index(0),
        },
        intermediate_pem: parts.intermediate_certificate_pem.clone(),
        sealed_root_key: seal(&parts.root_key_pem, SEAL_CONTEXT_ROOT)?,
        settings: None,
        sealed_intermediate_key: seal(&parts.intermediate_key_pem, SEAL_CONTEXT_INTERMEDIATE)?,
    })
}
