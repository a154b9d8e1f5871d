//! What Consul fills in where nothing was said.

use serde_json::{Map, Value};

use super::{ConfigKind, DEFAULT_PROTOCOL};

/// Fills in what stands for the empty values of a canonical body.
pub(super) fn fill(kind: ConfigKind, body: &mut Map<String, Value>) {
    match kind {
        ConfigKind::IngressGateway => each(body.get_mut("Listeners"), |listener| {
            set_empty(listener, "Protocol", DEFAULT_PROTOCOL.into());
        }),
        ConfigKind::ApiGateway => each(body.get_mut("Listeners"), |listener| {
            each(listener["TLS"].get_mut("Certificates"), |certificate| {
                set_empty(certificate, "Kind", ConfigKind::InlineCertificate.as_str().into());
            });
        }),
        ConfigKind::HttpRoute | ConfigKind::TcpRoute => {
            each(body.get_mut("Parents"), |parent| set_empty(parent, "Kind", ConfigKind::ApiGateway.as_str().into()));
            each(body.get_mut("Rules"), |rule| {
                each(rule.get_mut("Matches"), |wanted| {
                    if wanted["Path"]["Match"] == "" {
                        wanted["Path"]["Match"] = "prefix".into();
                        wanted["Path"]["Value"] = "/".into();
                    }
                });
                each(rule.get_mut("Services"), |service| {
                    if service["Weight"].as_i64().is_none_or(|weight| weight <= 0) {
                        service["Weight"] = 1.into();
                    }
                });
            });
        }
        ConfigKind::JwtProvider => {
            body.entry("ClockSkewSeconds").or_insert_with(|| 30.into());
        }
        _ => {}
    }
}

fn each(list: Option<&mut Value>, change: impl FnMut(&mut Value)) {
    list.and_then(Value::as_array_mut).into_iter().flatten().for_each(change);
}

fn set_empty(row: &mut Value, name: &str, value: Value) {
    if row[name] == "" {
        row[name] = value;
    }
}
