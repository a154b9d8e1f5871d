//! `lictor watch`: shows a view of the datacenter, or runs a program at every change of it.
//!
//! A view is a blocking query. The program gets the view as JSON on its standard input and its index in `CONSUL_INDEX`;
//! changes while it runs are seen when it has ended, only the last one of them.
//!
//! [`agent`] does the same for the watches of an agent's configuration; [`follow`] is what both share.

pub(crate) mod agent;
mod follow;
mod handler;
mod layout;
mod view;

use clap::Args;

use crate::api::{Api, ApiFlags};
use crate::arguments::go_bool;
use crate::output::{Failure, Output};
use follow::Follower;
use view::View;

/// What to watch, and what to run.
#[derive(Args, Default)]
pub(crate) struct WatchFlags {
    /// key, keyprefix, services, nodes, service, checks, event, connect_roots, connect_leaf or agent_service.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// The key, for the type key.
    #[arg(long)]
    key: Option<String>,
    /// The prefix, for the type keyprefix.
    #[arg(long)]
    prefix: Option<String>,
    /// The service, for the types service, checks and connect_leaf.
    #[arg(long)]
    service: Option<String>,
    /// A tag that instances must have, for the type service; may be given several times.
    #[arg(long)]
    tag: Vec<String>,
    /// Only instances whose checks pass, for the type service.
    #[arg(long, value_name = "true|false")]
    passingonly: Option<String>,
    /// The state of checks, for the type checks.
    #[arg(long)]
    state: Option<String>,
    /// The name of events, for the type event.
    #[arg(long)]
    name: Option<String>,
    /// The id of the instance, for the type agent_service.
    #[arg(long, value_name = "ID")]
    service_id: Option<String>,
    /// Run the program by a shell, which SHELL names; -shell=false runs it as it is.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    shell: Option<bool>,
    /// The program; without one the view is printed once.
    #[arg(value_name = "PROGRAM", allow_hyphen_values = true)]
    program: Vec<String>,
    #[command(flatten)]
    api: ApiFlags,
}

pub(super) async fn run(flags: WatchFlags) -> Result<Output, Failure> {
    let view = View::of(&flags)?;
    watch(Api::connect(&flags.api)?, view, &flags.program, flags.shell.unwrap_or(true)).await
}

async fn watch(api: Api, view: View, program: &[String], shell: bool) -> Result<Output, Failure> {
    let mut follower = Follower::new(api, view, |words| eprintln!("{words}"));
    loop {
        let shown = follower.next().await;
        if program.is_empty() {
            return Ok(Output::line(layout::indented(&shown.json)));
        }
        handler::run(program, shell, shown.index, &shown.json)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    fn flags(kind: &str) -> WatchFlags {
        WatchFlags { kind: Some(kind.into()), ..WatchFlags::default() }
    }

    #[tokio::test]
    async fn without_a_program_the_view_is_printed_once_in_its_order() {
        let answer = r#"[ {"Node": "n1","Address":"10.0.0.1", "Meta":{}, "Tags": []} ]"#;
        let fake = Fake::answering(&[("GET /v1/catalog/nodes?wait=50s", 200, answer)]).await;
        let output = watch(fake.api(), View::of(&flags("nodes")).unwrap(), &[], true).await.unwrap();
        let shown = "[\n    {\n        \"Node\": \"n1\",\n        \"Address\": \"10.0.0.1\",\n        \"Meta\": {},\n        \
                     \"Tags\": []\n    }\n]\n";
        assert_eq!(String::from_utf8(output.bytes).unwrap(), shown);
    }

    #[tokio::test]
    async fn a_key_that_is_not_there_is_null() {
        let fake = Fake::answering(&[]).await;
        let key = WatchFlags { key: Some("a/b".into()), ..flags("key") };
        let output = watch(fake.api(), View::of(&key).unwrap(), &[], true).await.unwrap();
        assert_eq!(output.bytes, b"null\n");
    }

    #[tokio::test]
    async fn a_program_that_fails_ends_the_watch() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("seen");
        let script = format!("cat > {}; echo $CONSUL_INDEX; exit 3", file.display());
        let fake = Fake::answering(&[("GET /v1/catalog/services?wait=50s", 200, r#"{ "web": ["a"] }"#)]).await;
        let view = || View::of(&flags("services")).unwrap();
        let failed = watch(fake.api(), view(), std::slice::from_ref(&script), true).await.unwrap_err();
        assert_eq!(failed.to_string(), "Error executing handler: exit status: 3");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"web\":[\"a\"]}\n");
        let program = ["sh".to_owned(), "-c".to_owned(), script];
        assert!(watch(fake.api(), view(), &program, false).await.is_err());
        let missing = watch(fake.api(), view(), &["/nowhere/program".to_owned()], false).await.unwrap_err();
        assert!(missing.to_string().starts_with("Error executing handler: /nowhere/program: "), "{missing}");
    }

    #[test]
    fn what_cannot_be_watched_is_refused_in_consuls_words() {
        let refused = |flags: WatchFlags| View::of(&flags).err().map(|failure| failure.to_string()).unwrap();
        assert_eq!(refused(WatchFlags::default()), "Watch type must be specified");
        assert_eq!(refused(flags("foo")), "Unsupported watch type: foo");
        assert_eq!(refused(flags("key")), "Must specify a single key to watch");
        assert_eq!(
            refused(WatchFlags { state: Some("any".into()), service: Some("web".into()), ..flags("checks") }),
            "Cannot specify service and state"
        );
        assert_eq!(
            refused(WatchFlags { service: Some("web".into()), passingonly: Some("x".into()), ..flags("service") }),
            "Failed to parse passingonly flag: strconv.ParseBool: parsing \"x\": invalid syntax"
        );
    }
}
