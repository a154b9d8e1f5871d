//! `lictor monitor`: the log of an agent as it is written.

use std::io::Write;

use clap::Args;

use crate::api::{Api, ApiFlags};
use crate::output::{Failure, Output};

/// Of which agent, and how much.
#[derive(Args)]
pub(crate) struct MonitorFlags {
    /// trace, debug, info, warn or error.
    #[arg(long, value_name = "LEVEL", default_value = "INFO")]
    log_level: String,
    /// Lines are JSON objects.
    #[arg(long)]
    log_json: bool,
    #[command(flatten)]
    api: ApiFlags,
}

pub(super) async fn run(flags: MonitorFlags) -> Result<Output, Failure> {
    let api = Api::connect(&flags.api)?;
    let mut query = vec![("loglevel", flags.log_level.as_str())];
    if flags.log_json {
        query.push(("logjson", ""));
    }
    let starting = Failure::because("Error starting monitor");
    let mut reply = api.client().get_stream("/v1/agent/monitor", &query).await.map_err(starting)?;
    let mut out = std::io::stdout();
    loop {
        let next = tokio::select! {
            next = reply.next() => next,
            _ = tokio::signal::ctrl_c() => return Ok(Output::default()),
        };
        match next {
            Ok(Some(bytes)) => match out.write_all(&bytes).and_then(|()| out.flush()) {
                // The reader had enough.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Output::default()),
                written => written.map_err(Failure::because("Error writing the log"))?,
            },
            Ok(None) => {
                return Ok(Output::remark(
                    "Remote side ended the monitor! This usually means that the agent has exited or crashed.",
                ));
            }
            Err(error) => return Err(Failure::because("Error following the log")(error)),
        }
    }
}
