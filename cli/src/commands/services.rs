//! `lictor services`: services of the agent that is asked.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use lictor_client::encode_path;
use serde_json::{Map, Value, json};

mod exports;

use super::key_value;
use crate::api::{Api, ApiFlags};
use crate::input::{self, text_field};
use crate::output::{Failure, Output};

/// What to do with services.
#[derive(Subcommand)]
pub(crate) enum ServicesCommand {
    /// Registers services of files, or one of flags
    Register(RegisterFlags),
    /// Deregisters services of files, or one by its id
    Deregister(DeregisterFlags),
    /// Lets peers call a service
    Export(exports::ExportFlags),
    /// Lists the services that peers may call
    ExportedServices(exports::ListFlags),
}

/// What to register.
#[derive(Args, Default)]
pub(crate) struct RegisterFlags {
    /// Files with `service` or `services` in HCL or JSON, `-` for the standard input.
    #[arg(value_name = "FILE", required_unless_present = "name", conflicts_with = "name")]
    files: Vec<String>,
    /// Name of the service.
    #[arg(long)]
    name: Option<String>,
    /// Id of the instance, if it is not the name.
    #[arg(long)]
    id: Option<String>,
    /// Address of the instance, if it is not the agent's.
    #[arg(long)]
    address: Option<String>,
    /// Port of the instance.
    #[arg(long)]
    port: Option<u16>,
    /// Tag of the instance; may be given several times.
    #[arg(long)]
    tag: Vec<String>,
    /// Meta of the instance; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    meta: Vec<(String, String)>,
    /// Kind of the service.
    #[arg(long)]
    kind: Option<String>,
    #[command(flatten)]
    api: ApiFlags,
}

/// What to deregister.
#[derive(Args, Default)]
pub(crate) struct DeregisterFlags {
    /// Files with `service` or `services` in HCL or JSON, `-` for the standard input.
    #[arg(value_name = "FILE", required_unless_present = "id", conflicts_with = "id")]
    files: Vec<String>,
    /// Id of one instance.
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    api: ApiFlags,
}

pub(super) async fn run(command: ServicesCommand) -> Result<Output, Failure> {
    match command {
        ServicesCommand::Register(flags) => register(&Api::connect(&flags.api)?, &flags).await,
        ServicesCommand::Deregister(flags) => deregister(&Api::connect(&flags.api)?, &flags).await,
        ServicesCommand::Export(flags) => exports::export(&flags).await,
        ServicesCommand::ExportedServices(flags) => exports::list(&flags).await,
    }
}

async fn register(api: &Api, flags: &RegisterFlags) -> Result<Output, Failure> {
    let mut lines = Vec::new();
    for service in if flags.files.is_empty() { vec![of_flags(flags)] } else { of_files(&flags.files)? } {
        let name = text_field(&service, "name");
        api.client()
            .put_json::<_, Value>("/v1/agent/service/register", &[], &service)
            .await
            .map_err(Failure::because(format!("Error registering service {name:?}")))?;
        lines.push(format!("Registered service: {name}"));
    }
    Ok(Output::lines(lines))
}

async fn deregister(api: &Api, flags: &DeregisterFlags) -> Result<Output, Failure> {
    let ids = match &flags.id {
        Some(id) => vec![id.clone()],
        None => of_files(&flags.files)?
            .iter()
            .map(|service| [text_field(service, "id"), text_field(service, "name")])
            .filter_map(|names| names.into_iter().find(|name| !name.is_empty()).map(str::to_owned))
            .collect(),
    };
    let mut lines = Vec::new();
    for id in ids {
        api.client()
            .put_bytes(&format!("/v1/agent/service/deregister/{}", encode_path(&id)), &[], bytes::Bytes::new())
            .await
            .map_err(Failure::because(format!("Error deregistering service {id:?}")))?;
        lines.push(format!("Deregistered service: {id}"));
    }
    Ok(Output::lines(lines))
}

fn of_flags(flags: &RegisterFlags) -> Value {
    let mut service = Map::new();
    let texts = [("Kind", &flags.kind), ("ID", &flags.id), ("Name", &flags.name), ("Address", &flags.address)];
    for (key, text) in texts {
        if let Some(text) = text {
            service.insert(key.into(), json!(text));
        }
    }
    if let Some(port) = flags.port {
        service.insert("Port".into(), json!(port));
    }
    service.insert("Tags".into(), json!(flags.tag));
    service.insert("Meta".into(), json!(flags.meta.iter().cloned().collect::<BTreeMap<_, _>>()));
    Value::Object(service)
}

/// The services that files define: one or several `service`, and the list `services`.
fn of_files(files: &[String]) -> Result<Vec<Value>, Failure> {
    let mut services = Vec::new();
    for file in files {
        let before = services.len();
        let content = input::structured(file).map_err(Failure::because("Error"))?;
        for key in ["service", "services"] {
            match content.get(key) {
                Some(Value::Array(several)) => services.extend(several.iter().cloned()),
                Some(one @ Value::Object(_)) => services.push(one.clone()),
                Some(_) => {
                    return Err(Failure::new(format!("Error: {file}: {key} must be an object or a list of them")));
                }
                None => {}
            }
        }
        if services.len() == before {
            return Err(Failure::new(format!(
                "Error: {file} defines no service: write for example service {{ name = \"web\" }}"
            )));
        }
    }
    Ok(services)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::fake::Fake;

    fn text(output: Output) -> String {
        String::from_utf8(output.bytes).unwrap()
    }

    #[tokio::test]
    async fn services_of_files_are_registered_and_deregistered_by_id() {
        let fake = Fake::answering(&[
            ("PUT /v1/agent/service/register", 200, ""),
            ("PUT /v1/agent/service/deregister/web-1", 200, ""),
            ("PUT /v1/agent/service/deregister/api", 200, ""),
        ])
        .await;
        let directory = tempfile::tempdir().unwrap();
        let (hcl, json) = (directory.path().join("a.hcl"), directory.path().join("b.json"));
        std::fs::write(&hcl, "service {\n name = \"web\"\n id = \"web-1\"\n port = 80\n}\n").unwrap();
        std::fs::write(&json, r#"{"services": [{"name": "api"}]}"#).unwrap();
        let files = [&hcl, &json].map(|path| path.to_str().unwrap().to_owned()).to_vec();
        let flags = RegisterFlags { files: files.clone(), ..RegisterFlags::default() };
        assert_eq!(
            text(register(&fake.api(), &flags).await.unwrap()),
            "Registered service: web\nRegistered service: api\n"
        );
        assert_eq!(fake.last_body(), r#"{"name":"api"}"#);
        let flags = DeregisterFlags { files, ..DeregisterFlags::default() };
        assert_eq!(
            text(deregister(&fake.api(), &flags).await.unwrap()),
            "Deregistered service: web-1\nDeregistered service: api\n"
        );
    }

    #[test]
    fn flags_make_a_service_as_the_api_takes_it() {
        let flags = RegisterFlags {
            name: Some("web".into()),
            port: Some(80),
            tag: vec!["a".into()],
            meta: vec![("k".into(), "v".into())],
            ..RegisterFlags::default()
        };
        assert_eq!(of_flags(&flags), json!({"Name": "web", "Port": 80, "Tags": ["a"], "Meta": {"k": "v"}}));
    }

    #[test]
    fn a_file_without_a_service_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.json");
        std::fs::write(&file, "{}").unwrap();
        let error = of_files(&[file.to_str().unwrap().to_owned()]).unwrap_err().to_string();
        assert!(error.contains("defines no service"), "{error}");
    }
}
