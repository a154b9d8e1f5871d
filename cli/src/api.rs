//! Where the HTTP API is and who asks: the flags and variables that all commands share which speak to an agent.

use std::path::{Path, PathBuf};

use clap::Args;
use lictor_client::{Client, ClientCertificate, ClientError, ClientSettings, ResponseMeta};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::output::Failure;

/// Where an agent listens unless told otherwise.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8500";
/// The most files of a directory of CAs.
const CA_FILES_MAX: usize = 256;
/// The largest CA or token file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The flags of every command that speaks to an agent.
#[derive(Args, Default)]
#[command(next_help_heading = "HTTP API options")]
pub(crate) struct ApiFlags {
    /// Address and port of an agent's HTTP API; else CONSUL_HTTP_ADDR, else http://127.0.0.1:8500.
    #[arg(long, value_name = "ADDRESS")]
    http_addr: Option<String>,
    /// ACL token; others on this machine can see it, so prefer -token-file or CONSUL_HTTP_TOKEN.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// File with the ACL token; else CONSUL_HTTP_TOKEN_FILE.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the CA that signed the server's certificate; else CONSUL_CACERT.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Directory with the CAs that may have signed it; else CONSUL_CAPATH.
    #[arg(long, value_name = "DIRECTORY")]
    ca_path: Option<PathBuf>,
    /// File with the certificate that the server is shown; else CONSUL_CLIENT_CERT.
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// File with the key of that certificate; else CONSUL_CLIENT_KEY.
    #[arg(long, value_name = "FILE")]
    client_key: Option<PathBuf>,
    /// Name in the server's certificate, if not the host of the address; else CONSUL_TLS_SERVER_NAME.
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// Datacenter to ask, if not the agent's own.
    #[arg(long, value_name = "NAME")]
    datacenter: Option<String>,
    /// Of Consul Enterprise: empty or "default".
    #[arg(long, value_name = "NAME", hide = true)]
    namespace: Option<String>,
    /// Of Consul Enterprise: empty or "default".
    #[arg(long, value_name = "NAME", hide = true)]
    partition: Option<String>,
    /// Let any server answer, not only the leader: faster, and possibly behind.
    #[arg(long)]
    stale: bool,
}

/// An agent's HTTP API.
pub(crate) struct Api {
    client: Client,
    stale: bool,
}

impl Api {
    /// The API that flags and environment name.
    ///
    /// # Errors
    /// A file cannot be read, or the settings cannot be used.
    pub(crate) fn connect(flags: &ApiFlags) -> Result<Self, Failure> {
        let settings = flags.settings(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))?;
        if settings.is_unverified && settings.address.starts_with("https://") {
            eprintln!(
                "WARNING: CONSUL_HTTP_SSL_VERIFY is false: whoever is on the way to {} can read and change everything, the \
                 token too",
                settings.address
            );
        }
        let client = Client::new(settings).map_err(Failure::because("Error connecting to Consul agent"))?;
        Ok(Self { client, stale: flags.stale })
    }

    /// The API that this client asks.
    pub(crate) fn of(client: Client) -> Self {
        Self { client, stale: false }
    }

    /// GET, as JSON.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<(T, ResponseMeta), ClientError> {
        let mut query = query.to_vec();
        if self.stale {
            query.push(("stale", ""));
        }
        self.client.get_json(path, &query).await
    }

    /// GET of what may not be there.
    pub(crate) async fn find<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Option<T>, ClientError> {
        match self.get(path, query).await {
            Ok((found, _)) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Any server may answer.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    /// GET of JSON that is passed on as it is; none for what is not there, which has an index all the same.
    pub(crate) async fn find_raw(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<(Option<Box<RawValue>>, ResponseMeta), ClientError> {
        let mut query = query.to_vec();
        if self.stale {
            query.push(("stale", ""));
        }
        self.client.find_json(path, &query).await
    }

    /// What changes things; writes are never stale.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

impl ApiFlags {
    /// The flags that name an address and nothing else.
    #[cfg(test)]
    pub(crate) fn at(address: &str) -> Self {
        Self { http_addr: Some(address.to_owned()), ..Self::default() }
    }

    /// The settings of these flags, and of variables where there is no flag. A file with a token goes before a token,
    /// and a flag before a variable, as in Consul.
    fn settings(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<ClientSettings, Failure> {
        let is_unverified =
            variable("CONSUL_HTTP_SSL_VERIFY").is_some_and(|value| crate::arguments::go_bool(&value) == Ok(false));
        self.one_tenant(variable)?;
        let mut address =
            self.http_addr.clone().or_else(|| variable("CONSUL_HTTP_ADDR")).unwrap_or_else(|| DEFAULT_ADDRESS.into());
        let tls = variable("CONSUL_HTTP_SSL").is_some_and(|value| crate::arguments::go_bool(&value) == Ok(true));
        if !address.contains("://") {
            address = format!("{}://{address}", if tls { "https" } else { "http" });
        }
        let is_https = address.starts_with("https://");
        let ca_pem = if is_https { self.authorities(variable)? } else { None };
        let certificate = if is_https { self.certificate(variable)? } else { None };
        let token = if let Some(path) = &self.token_file {
            Some(read_token(path)?)
        } else if let Some(token) = self.token.clone().filter(|token| !token.is_empty()) {
            Some(token)
        } else if let Some(path) = variable("CONSUL_HTTP_TOKEN_FILE") {
            Some(read_token(Path::new(&path))?)
        } else {
            variable("CONSUL_HTTP_TOKEN")
        };
        let server_name = self.tls_server_name.clone().or_else(|| variable("CONSUL_TLS_SERVER_NAME"));
        Ok(ClientSettings {
            address,
            ca_pem,
            is_unverified,
            certificate,
            basic_auth: variable("CONSUL_HTTP_AUTH"),
            server_name,
            token,
            datacenter: self.datacenter.clone(),
        })
    }

    /// There is one namespace, and one partition.
    fn one_tenant(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<(), Failure> {
        for (given, flag, name, feature) in [
            (&self.namespace, "-namespace", "CONSUL_NAMESPACE", "Namespaces"),
            (&self.partition, "-partition", "CONSUL_PARTITION", "Partitions"),
        ] {
            let (from, wanted) = match given {
                Some(wanted) => (flag, Some(wanted.clone())),
                None => (name, variable(name)),
            };
            if let Some(wanted) = wanted.filter(|wanted| !matches!(wanted.as_str(), "" | "default")) {
                return Err(Failure::new(format!(
                    "{from} is {wanted:?}, and {feature} are a Consul Enterprise feature: leave it out, or give \"default\""
                )));
            }
        }
        Ok(())
    }

    /// The text of the CA file, or of all files in the CA directory.
    fn authorities(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, Failure> {
        let of = |flag: &Option<PathBuf>, name: &str| flag.clone().or_else(|| variable(name).map(PathBuf::from));
        if let Some(file) = of(&self.ca_file, "CONSUL_CACERT") {
            return Ok(Some(read(&file)?.to_string()));
        }
        let Some(directory) = of(&self.ca_path, "CONSUL_CAPATH") else { return Ok(None) };
        let unreadable = |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", directory.display()));
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.is_file() {
                files.push(path);
            }
        }
        if files.is_empty() || files.len() > CA_FILES_MAX {
            let (found, shown) = (files.len(), directory.display());
            return Err(Failure::new(format!("{shown} holds {found} files of CAs; from 1 to {CA_FILES_MAX} are read")));
        }
        files.sort();
        let texts: Result<Vec<String>, Failure> = files.iter().map(|path| Ok(read(path)?.to_string())).collect();
        Ok(Some(texts?.join("\n")))
    }

    /// What the server is shown, where it asks.
    fn certificate(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<ClientCertificate>, Failure> {
        let of = |flag: &Option<PathBuf>, name: &str| flag.clone().or_else(|| variable(name).map(PathBuf::from));
        match (of(&self.client_cert, "CONSUL_CLIENT_CERT"), of(&self.client_key, "CONSUL_CLIENT_KEY")) {
            (None, None) => Ok(None),
            (Some(chain), Some(key)) => {
                Ok(Some(ClientCertificate { chain_pem: read(&chain)?.to_string(), key_pem: read(&key)? }))
            }
            _ => Err(Failure::new(
                "a client certificate and its key go together: give both -client-cert and -client-key",
            )),
        }
    }
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let text = read(path)?;
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::new(format!("{} holds no token", path.display())));
    }
    Ok(token.to_owned())
}

fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let unreadable = |reason: String| Failure::new(format!("cannot read {}: {reason}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(unreadable(format!("it has {length} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(flags: &ApiFlags, variables: &[(&str, &str)]) -> Result<ClientSettings, Failure> {
        flags.settings(&|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn a_flag_goes_before_a_variable_and_a_variable_before_the_default() {
        let flags = ApiFlags { http_addr: Some("a:1".into()), ..ApiFlags::default() };
        let variables = [("CONSUL_HTTP_ADDR", "https://b:2")];
        assert_eq!(settings(&flags, &variables).unwrap().address, "http://a:1");
        assert_eq!(settings(&ApiFlags::default(), &variables).unwrap().address, "https://b:2");
        assert_eq!(settings(&ApiFlags::default(), &[]).unwrap().address, "http://127.0.0.1:8500");
        let tls = settings(&ApiFlags::default(), &[("CONSUL_HTTP_SSL", "true"), ("CONSUL_HTTP_ADDR", "c:3")]);
        assert_eq!(tls.unwrap().address, "https://c:3");
    }

    #[test]
    fn tokens_are_taken_in_consuls_order() {
        let directory = tempfile::tempdir().unwrap();
        let (first, third) = (directory.path().join("first"), directory.path().join("third"));
        std::fs::write(&first, "first\n").unwrap();
        std::fs::write(&third, " third ").unwrap();
        let variables = [("CONSUL_HTTP_TOKEN_FILE", third.to_str().unwrap()), ("CONSUL_HTTP_TOKEN", "fourth")];
        let mut flags = ApiFlags { token: Some("second".into()), token_file: Some(first), ..ApiFlags::default() };
        let mut taken = Vec::new();
        taken.push(settings(&flags, &variables).unwrap().token);
        flags.token_file = None;
        taken.push(settings(&flags, &variables).unwrap().token);
        flags.token = None;
        taken.push(settings(&flags, &variables).unwrap().token);
        taken.push(settings(&flags, &variables[1..]).unwrap().token);
        taken.push(settings(&flags, &[]).unwrap().token);
        let taken: Vec<_> = taken.iter().map(Option::as_deref).collect();
        assert_eq!(taken, [Some("first"), Some("second"), Some("third"), Some("fourth"), None]);
    }

    #[test]
    fn an_https_client_takes_its_authorities_and_certificate_from_files() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("authorities")).unwrap();
        for (name, text) in [("authorities/b", "B"), ("authorities/a", "A"), ("cert", "C"), ("key", "K")] {
            std::fs::write(at(name), text).unwrap();
        }
        let flags = ApiFlags { ca_path: Some(at("authorities")), ..ApiFlags::default() };
        let (cert, key) = (at("cert"), at("key"));
        let variables = [
            ("CONSUL_HTTP_ADDR", "https://a:1"),
            ("CONSUL_CLIENT_CERT", cert.to_str().unwrap()),
            ("CONSUL_CLIENT_KEY", key.to_str().unwrap()),
            ("CONSUL_HTTP_AUTH", "user:pass"),
            ("CONSUL_HTTP_SSL_VERIFY", "false"),
        ];
        let taken = settings(&flags, &variables).unwrap();
        assert_eq!(taken.ca_pem.as_deref(), Some("A\nB"));
        let certificate = taken.certificate.unwrap();
        assert_eq!((certificate.chain_pem.as_str(), certificate.key_pem.as_str()), ("C", "K"));
        assert_eq!((taken.basic_auth.as_deref(), taken.is_unverified), (Some("user:pass"), true));
        let plain = settings(&flags, &[("CONSUL_CLIENT_CERT", "/nowhere")]).unwrap();
        assert!(plain.certificate.is_none() && plain.ca_pem.is_none(), "plain HTTP reads no file");
    }

    #[tokio::test]
    async fn basic_auth_goes_along_with_the_token() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        lictor_runtime::Tasks::new().spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = [0; 4096];
            let count = stream.read(&mut read).await.unwrap();
            let head = String::from_utf8_lossy(&read[..count]).to_ascii_lowercase();
            let both = head.contains("authorization: basic dxnlcjpwyxnz\r\n") && head.contains("x-consul-token: t\r\n");
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{both}", both.to_string().len());
            stream.write_all(reply.as_bytes()).await.unwrap();
        });
        let flags = ApiFlags { token: Some("t".into()), ..ApiFlags::at(&address) };
        let client = Client::new(settings(&flags, &[("CONSUL_HTTP_AUTH", "user:pass")]).unwrap()).unwrap();
        let (both, _): (bool, _) = Api::of(client).get("/v1/status/leader", &[]).await.unwrap();
        assert!(both);
    }

    #[tokio::test]
    async fn a_unix_socket_is_asked_as_an_address_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("http.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        lictor_runtime::Tasks::new().spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = [0; 4096];
            let count = stream.read(&mut read).await.unwrap();
            let is_asked = read[..count].starts_with(b"GET /v1/status/leader HTTP/1.1\r\n");
            let body = if is_asked { "\"10.0.0.1:8300\"" } else { "\"\"" };
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(reply.as_bytes()).await.unwrap();
        });
        let address = format!("unix://{}", path.display());
        let (leader, _): (String, _) =
            Api::connect(&ApiFlags::at(&address)).unwrap().get("/v1/status/leader", &[]).await.unwrap();
        assert_eq!(leader, "10.0.0.1:8300");
        let nobody = Api::connect(&ApiFlags::at(&format!("{address}.gone"))).unwrap();
        let error = nobody.get::<String>("/v1/status/leader", &[]).await.unwrap_err().to_string();
        assert!(error.contains("http.sock.gone"), "{error}");
        assert!(Api::connect(&ApiFlags::at("unix://relative")).is_err());
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_what_can() {
        let refused = |variables: &[(&str, &str)]| settings(&ApiFlags::default(), variables).err().unwrap().to_string();
        assert!(refused(&[("CONSUL_NAMESPACE", "a")]).contains("Namespaces are a Consul Enterprise feature"));
        assert!(refused(&[("CONSUL_PARTITION", "a")]).contains("Partitions are a Consul Enterprise feature"));
        assert!(settings(&ApiFlags::default(), &[("CONSUL_NAMESPACE", "default"), ("CONSUL_PARTITION", "")]).is_ok());
        let address = ("CONSUL_HTTP_ADDR", "https://a:1");
        assert!(refused(&[address, ("CONSUL_CLIENT_CERT", "/x")]).contains("go together"));
        assert!(refused(&[address, ("CONSUL_CAPATH", "/nowhere")]).contains("/nowhere"));
        let socket = settings(&ApiFlags::default(), &[("CONSUL_HTTP_ADDR", "unix:///run/consul.sock")]);
        assert_eq!(socket.unwrap().address, "unix:///run/consul.sock");
        let missing = ApiFlags { token_file: Some("/nowhere/token".into()), ..ApiFlags::default() };
        assert!(settings(&missing, &[]).err().unwrap().to_string().contains("/nowhere/token"));
    }
}
