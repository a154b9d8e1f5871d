//! An API server of a hundred lines for tests: it stores what is applied and counts what changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// Stands in for the API server; clones share what it stores.
#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    objects: BTreeMap<String, Value>,
    changes: u64,
    writes: Vec<String>,
}

impl FakeApi {
    /// A client of this API server.
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let bytes = body.collect().await.expect("a whole body").to_bytes();
                let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
                let (code, answer) = api.answer(&parts.method, parts.uri.path(), body);
                let answer = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, std::convert::Infallible>(answer.expect("a legal response"))
            }
        });
        Client::new(service, "default")
    }

    /// Stores `object` at `path` as if it had always been there.
    pub(crate) fn hold(&self, path: &str, object: Value) {
        self.0.lock().expect("not poisoned").objects.insert(path.to_owned(), object);
    }

    /// Takes away what is at `path`.
    pub(crate) fn lose(&self, path: &str) {
        self.0.lock().expect("not poisoned").objects.remove(path).expect("it was there");
    }

    /// What is at `path`.
    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.0.lock().expect("not poisoned").objects.get(path).cloned()
    }

    /// Every object, with the version that tells how often it changed.
    pub(crate) fn objects(&self) -> BTreeMap<String, Value> {
        self.0.lock().expect("not poisoned").objects.clone()
    }

    /// Requests that wrote, in order, since the last call.
    pub(crate) fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("not poisoned").writes)
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let mut stored = self.0.lock().expect("not poisoned");
        let path = path.strip_suffix("/status").unwrap_or(path).to_owned();
        match *method {
            Method::GET => match stored.objects.get(&path) {
                Some(object) => (200, object.clone()),
                None if path.ends_with("/persistentvolumeclaims") => {
                    let inside = format!("{path}/");
                    let items: Vec<_> =
                        stored.objects.iter().filter(|(at, _)| at.starts_with(&inside)).map(|(_, it)| it).collect();
                    (
                        200,
                        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaimList", "metadata": {}, "items": items }),
                    )
                }
                None => refusal(404, "NotFound"),
            },
            Method::POST => {
                let at = format!("{path}/{}", body["metadata"]["name"].as_str().expect("a name"));
                stored.writes.push(format!("POST {at}"));
                if stored.objects.contains_key(&at) {
                    return refusal(409, "AlreadyExists");
                }
                (201, stored.store(at, body))
            }
            Method::PATCH => {
                stored.writes.push(format!("PATCH {path}"));
                let before = stored.objects.get(&path).cloned().unwrap_or_else(|| json!({}));
                let mut after = before.clone();
                merge(&mut after, body);
                if after == before { (200, after) } else { (200, stored.store(path, after)) }
            }
            _ => refusal(405, "MethodNotAllowed"),
        }
    }
}

impl Stored {
    fn store(&mut self, path: String, mut object: Value) -> Value {
        self.changes += 1;
        object["metadata"]["resourceVersion"] = json!(self.changes.to_string());
        self.objects.insert(path, object.clone());
        object
    }
}

fn refusal(code: u16, reason: &str) -> (u16, Value) {
    (
        code,
        json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "message": reason, "code": code }),
    )
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
