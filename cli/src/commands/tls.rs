//! `lictor tls`: the servers' CA and their certificates, as files in the working directory with Consul's names.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use lictor_identity::{HttpsCertificate, ServerAuthority, ServerCertificateRequest};
use lictor_runtime::{Clock, SystemClock};

use crate::key_file::{Secrecy, create_all};
use crate::output::{Failure, Output};

/// Certificates of one datacenter in one directory.
const CERTIFICATES_MAX: u32 = 10_000;
const DAY: u64 = 24 * 60 * 60;
const WARNING: &str = "==> WARNING: Server Certificates grants authority to become a
    server and access all state in the cluster including root keys
    and all ACL tokens. Do not distribute them to production hosts
    that are not server nodes. Store them as securely as CA keys.";

/// The CA, or what it signs.
#[derive(Subcommand)]
pub(crate) enum TlsCommand {
    /// The servers' certificate authority
    #[command(subcommand)]
    Ca(CaCommand),
    /// Certificates of servers, and of the HTTPS port
    #[command(subcommand)]
    Cert(CertCommand),
}

/// What to do with the CA.
#[derive(Subcommand)]
pub(crate) enum CaCommand {
    /// Makes a new CA, valid for five years
    Create(CaFlags),
}

/// Whose CA.
#[derive(Args)]
pub(crate) struct CaFlags {
    /// The DNS domain of the datacenters.
    #[arg(long, value_name = "NAME", default_value = "consul")]
    domain: String,
    /// A datacenter, for the CA's common name only.
    #[arg(long, value_name = "NAME", default_value = "dc1")]
    dc: String,
    /// The directory to write to; empty is the working directory.
    #[arg(skip)]
    directory: PathBuf,
}

/// What to do with certificates.
#[derive(Subcommand)]
pub(crate) enum CertCommand {
    /// Makes a key and a certificate for it
    Create(Box<CertFlags>),
}

/// Whose certificate.
#[derive(Args)]
pub(crate) struct CertFlags {
    /// For a server.
    #[arg(long)]
    server: bool,
    /// For the HTTPS port of an agent that is no server; on the server port it is nobody.
    #[arg(long)]
    client: bool,
    /// For the command line, where the HTTPS port asks for a certificate.
    #[arg(long)]
    cli: bool,
    /// The CA's certificate; by default <domain>-agent-ca.pem.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The CA's key; by default <domain>-agent-ca-key.pem.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The datacenter of the server.
    #[arg(long, value_name = "NAME", default_value = "dc1")]
    dc: String,
    /// How long the certificate is valid; never longer than the CA.
    #[arg(long, default_value_t = 365)]
    days: u32,
    /// The DNS domain of the datacenter.
    #[arg(long, value_name = "NAME", default_value = "consul")]
    domain: String,
    /// Node name of the server, for one more name in the certificate.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// A further name of the server; may be given several times.
    #[arg(long, value_name = "NAME")]
    additional_dnsname: Vec<String>,
    /// A further address of the server; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    additional_ipaddress: Vec<IpAddr>,
    /// The directory to write to; empty is the working directory.
    #[arg(skip)]
    directory: PathBuf,
}

pub(super) fn run(command: TlsCommand) -> Result<Output, Failure> {
    match command {
        TlsCommand::Ca(CaCommand::Create(flags)) => create_authority(&flags),
        TlsCommand::Cert(CertCommand::Create(flags)) => create_certificate(&flags),
    }
}

fn create_authority(flags: &CaFlags) -> Result<Output, Failure> {
    let authority = ServerAuthority::create(&flags.dc, &flags.domain, SystemClock.now())
        .map_err(Failure::because("cannot make the CA"))?;
    let certificate = format!("{}-agent-ca.pem", flags.domain);
    let key = format!("{}-agent-ca-key.pem", flags.domain);
    create_all(&[
        (&flags.directory.join(&certificate), authority.certificate_pem(), Secrecy::Public),
        (&flags.directory.join(&key), authority.key_pem(), Secrecy::Secret),
    ])?;
    Ok(Output::lines([format!("==> Saved {certificate}"), format!("==> Saved {key}")]))
}

fn create_certificate(flags: &CertFlags) -> Result<Output, Failure> {
    let whose = match (flags.server, flags.client, flags.cli) {
        (true, false, false) => None,
        (false, true, false) => Some(HttpsCertificate::Client),
        (false, false, true) => Some(HttpsCertificate::Cli),
        _ => return Err(Failure::new("Please provide either -server, -client, or -cli")),
    };
    let ca_file = flags.ca.clone().unwrap_or_else(|| format!("{}-agent-ca.pem", flags.domain).into());
    let key_file = flags.key.clone().unwrap_or_else(|| format!("{}-agent-ca-key.pem", flags.domain).into());
    let read = |path: &Path, what: &str| {
        std::fs::read_to_string(flags.directory.join(path))
            .map_err(Failure::because(format!("Error reading {what} {}", path.display())))
            .map(zeroize::Zeroizing::new)
    };
    let (ca, key) = (read(&ca_file, "CA")?, read(&key_file, "CA key")?);
    let authority = ServerAuthority::from_pem(&ca, &key).map_err(Failure::because("the CA cannot be used"))?;

    let mut request = ServerCertificateRequest::new(&flags.dc, &flags.domain);
    request.valid_for = Duration::from_secs(u64::from(flags.days) * DAY);
    request.dns_names = flags.additional_dnsname.iter().map(|name| name.trim().to_owned()).collect();
    if let Some(node) = flags.node.as_ref().filter(|_| whose.is_some()) {
        return Err(Failure::new(format!("-node={node} is for certificates of servers: give -server too")));
    }
    if let Some(node) = &flags.node {
        request.dns_names.push(format!("{node}.server.{}.{}", flags.dc, flags.domain));
    }
    request.ip_addresses = flags.additional_ipaddress.clone();
    if whose != Some(HttpsCertificate::Cli) {
        request.dns_names.push("localhost".into());
        request.ip_addresses.push([127, 0, 0, 1].into());
    }
    let now = SystemClock.now();
    let issued = match whose {
        None => authority.sign_server(&request, now),
        Some(whose) => authority.sign_https(whose, &request, now),
    };
    let issued = issued.map_err(Failure::because("cannot sign the certificate"))?;

    let prefix = format!("{}-{}-{}", flags.dc, whose.map_or("server", HttpsCertificate::as_str), flags.domain);
    let names =
        (0..CERTIFICATES_MAX).map(|number| (format!("{prefix}-{number}.pem"), format!("{prefix}-{number}-key.pem")));
    let (certificate, key) = names
        .into_iter()
        .find(|(certificate, key)| ![certificate, key].iter().any(|name| flags.directory.join(name).exists()))
        .ok_or_else(|| Failure::new("Could not find a filename that doesn't already exist"))?;
    create_all(&[
        (&flags.directory.join(&certificate), &issued.chain_pem, Secrecy::Public),
        (&flags.directory.join(&key), &issued.key_pem, Secrecy::Secret),
    ])?;
    let warning = whose.is_none().then(|| WARNING.to_owned());
    Ok(Output::lines(warning.into_iter().chain([
        format!("==> Using {} and {}", ca_file.display(), key_file.display()),
        format!("==> Saved {certificate}"),
        format!("==> Saved {key}"),
    ])))
}

#[cfg(test)]
mod tests {
    use lictor_identity::files::{read_keyed_chain, read_roots};

    use super::*;

    fn authority(directory: &Path) -> Result<Output, Failure> {
        create_authority(&CaFlags { domain: "consul".into(), dc: "dc1".into(), directory: directory.to_owned() })
    }

    fn certificate(directory: &Path) -> CertFlags {
        CertFlags {
            server: true,
            client: false,
            cli: false,
            ca: None,
            key: None,
            dc: "dc2".into(),
            days: 30,
            domain: "consul".into(),
            node: Some("n1".into()),
            additional_dnsname: vec![" extra.example ".into()],
            additional_ipaddress: vec![[10, 0, 0, 1].into()],
            directory: directory.to_owned(),
        }
    }

    #[test]
    fn files_have_consuls_names_and_are_numbered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        authority(path).unwrap();
        for number in 0..2 {
            let said = String::from_utf8(create_certificate(&certificate(path)).unwrap().bytes).unwrap();
            assert!(said.contains("==> Using consul-agent-ca.pem and consul-agent-ca-key.pem\n"), "{said}");
            assert!(said.ends_with(&format!("==> Saved dc2-server-consul-{number}-key.pem\n")), "{said}");
            let (chain, key) =
                (format!("dc2-server-consul-{number}.pem"), format!("dc2-server-consul-{number}-key.pem"));
            read_keyed_chain(&path.join(chain), &path.join(key), SystemClock.now()).unwrap();
        }
        read_roots(&path.join("consul-agent-ca.pem")).unwrap();
    }

    #[test]
    fn a_ca_is_never_written_over() {
        let directory = tempfile::tempdir().unwrap();
        authority(directory.path()).unwrap();
        let before = std::fs::read(directory.path().join("consul-agent-ca-key.pem")).unwrap();
        let error = authority(directory.path()).unwrap_err().to_string();
        assert!(error.ends_with("consul-agent-ca.pem already exists."), "{error}");
        assert_eq!(std::fs::read(directory.path().join("consul-agent-ca-key.pem")).unwrap(), before);
    }

    #[test]
    fn what_is_signed_for_https_is_no_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        authority(path).unwrap();
        for (client, kind) in [(true, "client"), (false, "cli")] {
            let flags = CertFlags { server: false, client, cli: !client, node: None, ..certificate(path) };
            let said = String::from_utf8(create_certificate(&flags).unwrap().bytes).unwrap();
            assert!(said.ends_with(&format!("==> Saved dc2-{kind}-consul-0-key.pem\n")), "{said}");
            assert!(!said.contains("WARNING"), "{said}");
            let (chain, key) = (format!("dc2-{kind}-consul-0.pem"), format!("dc2-{kind}-consul-0-key.pem"));
            let chain = read_keyed_chain(&path.join(chain), &path.join(key), SystemClock.now()).unwrap();
            let roots = read_roots(&path.join("consul-agent-ca.pem")).unwrap();
            let trust = lictor_identity::RpcTrust::new(roots, "dc2", "consul").unwrap();
            let peer = trust.classify(Some(chain.certificates()), Some(b"h2"), SystemClock.now());
            assert!(matches!(peer, Err(lictor_identity::PeerError::NotAServer(_))), "{peer:?}");
            let forged = CertFlags { additional_dnsname: vec!["Server.dc2.consul".into()], ..flags };
            let error = create_certificate(&forged).unwrap_err().to_string();
            assert!(error.contains("are those of servers"), "{error}");
        }
    }

    #[test]
    fn nothing_is_signed_without_a_ca_or_a_kind() {
        let directory = tempfile::tempdir().unwrap();
        let missing = create_certificate(&certificate(directory.path())).unwrap_err().to_string();
        assert!(missing.starts_with("Error reading CA consul-agent-ca.pem"), "{missing}");
        let both = CertFlags { client: true, ..certificate(directory.path()) };
        assert_eq!(
            create_certificate(&both).unwrap_err().to_string(),
            "Please provide either -server, -client, or -cli"
        );
        let nothing = CertFlags { server: false, ..certificate(directory.path()) };
        assert_eq!(
            create_certificate(&nothing).unwrap_err().to_string(),
            "Please provide either -server, -client, or -cli"
        );
    }
}
