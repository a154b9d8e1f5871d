//! The manifests that the test applies. Everything keeps to Pod Security "restricted".

/// Where operator and servers live.
pub(crate) const SYSTEM: &str = "lictor-system";
/// Where the workloads live.
pub(crate) const APPS: &str = "apps";
/// A namespace without a sidecar's right to exist.
pub(crate) const OUTSIDE: &str = "outside";
/// Name of the `ConsulDatacenter`, and so the beginning of the names of all that is made for it.
pub(crate) const DATACENTER: &str = "dc1";
/// The image of our one program.
pub(crate) const LICTOR_IMAGE: (&str, &str) = ("ci.local/lictor", "dev");
/// The image of the sample workloads.
pub(crate) const SAMPLE_IMAGE: &str = "ci.local/sample:dev";

/// A namespace in which only restricted pods may run.
pub(crate) fn namespace(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata:
  name: {name}
  labels: {{pod-security.kubernetes.io/enforce: restricted, pod-security.kubernetes.io/warn: restricted}}
"
    )
}

pub(crate) fn service_account(namespace: &str, name: &str) -> String {
    format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n")
}

pub(crate) fn datacenter() -> String {
    format!(
        "apiVersion: lictor.dev/v1alpha1
kind: ConsulDatacenter
metadata: {{name: {DATACENTER}, namespace: {SYSTEM}}}
spec:
  datacenter: dc1
  servers: {{replicas: 3, storage: {{size: 1Gi}}}}
  inject: {{namespaces: [{APPS}]}}
"
    )
}

/// One sample workload.
pub(crate) struct Workload<'a> {
    pub(crate) name: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) service_account: &'a str,
    /// Lines of the form `key: "value"`.
    pub(crate) annotations: &'a [&'a str],
    pub(crate) arguments: &'a [&'a str],
    pub(crate) with_port: bool,
    /// The name of a Secret whose key `token` becomes the variable `LICTOR_TOKEN`.
    pub(crate) token: Option<&'a str>,
}

impl<'a> Workload<'a> {
    /// A workload whose author did nothing but ask for a sidecar.
    pub(crate) fn injected(name: &'a str, arguments: &'a [&'a str]) -> Self {
        Self {
            name,
            namespace: APPS,
            service_account: name,
            annotations: &["lictor.dev/inject: \"true\""],
            arguments,
            with_port: true,
            token: None,
        }
    }

    /// As a Deployment of one pod.
    pub(crate) fn deployment(&self) -> String {
        let Self { name, namespace, .. } = self;
        format!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata:
      labels: {{app: {name}}}
      annotations: {{{}}}
    spec:
{}",
            self.annotations.join(", "),
            indent(&self.pod_spec(), "      ")
        )
    }

    /// As a bare pod.
    pub(crate) fn pod(&self) -> String {
        let Self { name, namespace, .. } = self;
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}, annotations: {{{}}}}}
spec:
{}",
            self.annotations.join(", "),
            indent(&self.pod_spec(), "  ")
        )
    }

    fn pod_spec(&self) -> String {
        let arguments: Vec<String> = self.arguments.iter().map(|word| format!("{word:?}")).collect();
        let token = self.token.map_or_else(String::new, |secret| {
            format!(", {{name: LICTOR_TOKEN, valueFrom: {{secretKeyRef: {{name: {secret}, key: token}}}}}}")
        });
        format!(
            "serviceAccountName: {}
terminationGracePeriodSeconds: 5
securityContext: {{runAsNonRoot: true, runAsUser: 65532, seccompProfile: {{type: RuntimeDefault}}}}
containers:
- name: {}
  image: {SAMPLE_IMAGE}
  imagePullPolicy: Never
  args: [{}]
  env: [{{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}{token}]
  ports: [{}]
  securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
  readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
",
            self.service_account,
            self.name,
            arguments.join(", "),
            if self.with_port { "{containerPort: 8080}" } else { "" },
        )
    }
}

fn indent(text: &str, by: &str) -> String {
    text.lines().map(|line| format!("{by}{line}\n")).collect()
}
