//! What can be wrong with a certificate authority or with what it is asked to sign.

/// Why an authority could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate text holds no readable certificate.
    #[error("the {what} certificate cannot be read: {reason}; a PEM block `CERTIFICATE` is needed")]
    UnreadableCertificate {
        /// Which certificate.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// The key text holds no readable private key.
    #[error("the {what} key cannot be read: {reason}; a PEM block `PRIVATE KEY` or `EC PRIVATE KEY` is needed")]
    UnreadableKey {
        /// Which key.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// Key and certificate belong to different pairs.
    #[error("the {what} key does not match its certificate; give the key that the certificate was made with")]
    KeyMismatch {
        /// Which pair.
        what: &'static str,
    },
    /// The certificate may not sign others.
    #[error("the {what} certificate is not a certificate authority (basicConstraints CA:TRUE is needed)")]
    NotAnAuthority {
        /// Which certificate.
        what: &'static str,
    },
    /// The authority's own certificate has ended or has not begun.
    #[error("the {what} certificate is valid from {not_before} to {not_after}, which does not hold now; renew it")]
    OutsideValidity {
        /// Which certificate.
        what: &'static str,
        /// Its beginning.
        not_before: String,
        /// Its end.
        not_after: String,
    },
    /// A name that cannot stand in a certificate.
    #[error("{name:?} cannot be a DNS name in a certificate: {reason}")]
    InvalidName {
        /// The name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The lifetime asked for is outside of what is allowed.
    #[error("a lifetime of {seconds} seconds is not allowed; it must be from {least} to {most} seconds")]
    InvalidLifetime {
        /// What was asked for.
        seconds: u64,
        /// The shortest allowed.
        least: u64,
        /// The longest allowed.
        most: u64,
    },
    /// The signing library failed.
    #[error("signing failed: {0}")]
    Signing(#[from] rcgen::Error),
}
