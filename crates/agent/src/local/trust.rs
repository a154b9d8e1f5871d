//! Whom an HTTPS or TLS check trusts: the machine's own authorities, or anybody where the definition says so.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Where systems keep the authorities that they trust; the first that is there counts.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The configuration of a check's handshake, each made once. `http2` offers that protocol and no other.
///
/// # Errors
/// The machine has no authorities to trust.
pub(super) fn config(skip_verify: bool, http2: bool) -> Result<Arc<ClientConfig>, String> {
    type Made = OnceLock<Result<Arc<ClientConfig>, String>>;
    static MADE: [Made; 4] = [const { OnceLock::new() }; 4];
    let make = || {
        let mut config = if skip_verify { trusting() } else { verifying()? };
        if http2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        Ok(Arc::new(config))
    };
    MADE[usize::from(skip_verify) + 2 * usize::from(http2)].get_or_init(make).clone()
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider's own suites serve the default versions")
}

fn verifying() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if let Some(bundle) = BUNDLES.iter().find(|path| std::fs::exists(path).unwrap_or(false)) {
        let certificates = CertificateDer::pem_file_iter(bundle).map_err(|error| format!("{bundle}: {error}"))?;
        // A bundle may hold one that our library does not understand; the others still count.
        roots.add_parsable_certificates(certificates.flatten());
    }
    if roots.is_empty() {
        return Err("this machine has no CA certificates to verify with (/etc/ssl/certs/ca-certificates.crt); \
                    set TLSSkipVerify or check over plain HTTP"
            .into());
    }
    Ok(builder().with_root_certificates(roots).with_no_client_auth())
}

fn trusting() -> ClientConfig {
    let verifier = Arc::new(Anybody(aws_lc_rs::default_provider()));
    builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
}

/// Takes any certificate: what `TLSSkipVerify` asks for. The far end still has to hold the certificate's key.
#[derive(Debug)]
struct Anybody(CryptoProvider);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
