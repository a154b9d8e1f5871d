//! Telling a URL something, as an HTTP check asks one: the same dialling, trust and limits.

use std::time::Duration;

use lictor_runtime::Resolver;
use lictor_types::CheckStatus;

use super::CheckDefinition;
use super::probe::Probe;

/// Bytes of what the far end says that are told when it refuses.
const ANSWER_BYTES_MAX: usize = 4096;

/// Sends the request of an HTTP check once.
///
/// # Errors
/// What the far end said, or why it was not reached within `limit`.
pub async fn ask_url(request: &CheckDefinition, resolver: &Resolver, limit: Duration) -> Result<(), String> {
    let probe = Probe::of(request).ok_or_else(|| format!("{:?} is no URL that can be asked", request.http))?;
    let (status, output) = probe.run(resolver, limit, ANSWER_BYTES_MAX).await;
    if status == CheckStatus::Passing { Ok(()) } else { Err(output) }
}
