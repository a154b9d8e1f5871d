//! Whom an HTTPS client trusts, and what it shows.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use zeroize::Zeroizing;

/// A certificate that a client shows, and its key.
#[derive(Clone)]
pub struct ClientCertificate {
    /// The chain, PEM.
    pub chain_pem: String,
    /// The key, PEM.
    pub key_pem: Zeroizing<String>,
}

/// The configuration of every handshake: trusting `ca_pem`, or anybody where `is_unverified`.
pub(crate) fn config(
    ca_pem: Option<&str>,
    is_unverified: bool,
    own: Option<&ClientCertificate>,
) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if is_unverified {
        let anybody = Anybody(Arc::clone(&provider));
        builder.dangerous().with_custom_certificate_verifier(Arc::new(anybody))
    } else {
        builder.with_root_certificates(roots(ca_pem.unwrap_or_default())?)
    };
    let Some(own) = own else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(own.chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the client certificate cannot be read: {error}"))?;
    if chain.is_empty() {
        return Err("the file of the client certificate holds none".into());
    }
    let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes())
        .map_err(|error| format!("the key of the client certificate cannot be read: {error}"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| format!("the client certificate and its key cannot be used: {error}"))
}

fn roots(ca_pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("the CA cannot be read: {error}"))?;
        roots.add(certificate).map_err(|error| format!("the CA cannot be used: {error}"))?;
    }
    if roots.is_empty() { Err("the CA file holds no certificate".into()) } else { Ok(roots) }
}

/// Takes any certificate. The far end still has to hold the certificate's key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

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
