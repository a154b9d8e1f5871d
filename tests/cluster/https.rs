//! The command line before an HTTPS port that asks for a certificate.

use std::path::Path;
use std::process::{Command, Output};

use lictor_tests::process::{START_LIMIT, lictor, next_address};
use lictor_tests::{Agent, eventually};

fn run(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(lictor());
    command.current_dir(directory).args(arguments).envs(variables.iter().copied());
    command.output().expect("the program under test runs")
}

/// What it printed, after it ended as expected.
fn said(output: &Output, succeeds: bool) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.success(), succeeds, "{text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shows_a_certificate_is_let_in_and_who_shows_none_is_not() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = directory.path();
    let address = next_address();
    said(&run(place, &["tls", "ca", "create"], &[]), true);
    let own_address = format!("-additional-ipaddress={address}");
    said(&run(place, &["tls", "cert", "create", "-server", &own_address], &[]), true);
    said(&run(place, &["tls", "cert", "create", "-cli"], &[]), true);
    let at = |name: &str| place.join(name).display().to_string();
    let (ca, cert, key) = (at("consul-agent-ca.pem"), at("dc1-cli-consul-0.pem"), at("dc1-cli-consul-0-key.pem"));
    let https = format!(
        "tls {{ https {{ ca_file = {ca:?} cert_file = {:?} key_file = {:?} verify_incoming = true }} }}",
        at("dc1-server-consul-0.pem"),
        at("dc1-server-consul-0-key.pem")
    );
    let arguments = ["-dev".to_owned(), "-https-port=8501".to_owned(), format!("-hcl={https}")];
    let mut agent = Agent::new(place, "s1", address.clone(), &arguments);
    agent.start();
    eventually("a leader", START_LIMIT, || agent.leader()).await;

    let server = format!("-http-addr=https://{address}:8501");
    let (ca_flag, cert_flag, key_flag) =
        (format!("-ca-file={ca}"), format!("-client-cert={cert}"), format!("-client-key={key}"));
    let shown = run(place, &["members", &server, &ca_flag, &cert_flag, &key_flag], &[]);
    assert!(said(&shown, true).contains("s1"));
    let none = said(&run(place, &["members", &server, &ca_flag], &[]), false);
    assert!(none.to_ascii_lowercase().contains("certificate"), "{none}");

    // The same by variables, with the CA in a directory.
    std::fs::create_dir(place.join("authorities")).expect("a directory");
    std::fs::copy(&ca, place.join("authorities/ca.pem")).expect("a copy");
    let (url, authorities) = (format!("https://{address}:8501"), at("authorities"));
    let certificate = [("CONSUL_CLIENT_CERT", cert.as_str()), ("CONSUL_CLIENT_KEY", &key), ("CONSUL_HTTP_ADDR", &url)];
    let by_directory = [&certificate[..], &[("CONSUL_CAPATH", authorities.as_str())]].concat();
    assert!(said(&run(place, &["members"], &by_directory), true).contains("s1"));
    let by_nobody = said(&run(place, &["members"], &certificate), false);
    assert!(by_nobody.contains("-ca-file"), "{by_nobody}");
    let unverified = [&certificate[..], &[("CONSUL_HTTP_SSL_VERIFY", "false")]].concat();
    let warned = said(&run(place, &["members"], &unverified), true);
    assert!(warned.contains("s1") && warned.contains("WARNING: CONSUL_HTTP_SSL_VERIFY is false"), "{warned}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_agent_follows_its_files_of_https() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let place = directory.path();
    let (server_address, address) = (next_address(), next_address());
    // Two authorities, each with a certificate for the port and one for the command line.
    let own_address = format!("-additional-ipaddress={address}");
    for authority in ["first", "second"] {
        let at = place.join(authority);
        std::fs::create_dir(&at).expect("a directory");
        said(&run(&at, &["tls", "ca", "create"], &[]), true);
        said(&run(&at, &["tls", "cert", "create", "-client", &own_address], &[]), true);
        said(&run(&at, &["tls", "cert", "create", "-cli"], &[]), true);
    }
    let of_port = ["consul-agent-ca.pem", "dc1-client-consul-0.pem", "dc1-client-consul-0-key.pem"];
    let put = |authority: &str| {
        for file in of_port {
            let beside = place.join("new");
            std::fs::copy(place.join(authority).join(file), &beside).expect("a copy");
            std::fs::rename(&beside, place.join(file)).expect("it takes the place of the old one");
        }
    };
    put("first");
    let mut server = Agent::new(place, "s1", server_address.clone(), &["-dev".to_owned()]);
    server.start();
    eventually("a leader", START_LIMIT, || server.leader()).await;
    let [ca, cert, key] = of_port.map(|file| place.join(file).display().to_string());
    let https = format!(
        "tls {{ https {{ ca_file = {ca:?} cert_file = {cert:?} key_file = {key:?} verify_incoming = true }} }}"
    );
    let arguments = [
        format!("-data-dir={}", place.join("c1").display()),
        "-https-port=8501".to_owned(),
        format!("-server-address={server_address}:8300"),
        format!("-hcl={https}"),
    ];
    let mut agent = Agent::new(place, "c1", address.clone(), &arguments);
    agent.start();

    let asked = |authority: &'static str| {
        let url = format!("https://{address}:8501");
        let of_cli = ["consul-agent-ca.pem", "dc1-cli-consul-0.pem", "dc1-cli-consul-0-key.pem"];
        let [ca, cert, key] = of_cli.map(|file| place.join(authority).join(file).display().to_string());
        let variables = [("CONSUL_HTTP_ADDR", url.as_str()), ("CONSUL_CACERT", &ca), ("CONSUL_CLIENT_CERT", &cert)];
        let output = run(place, &["members"], &[&variables[..], &[("CONSUL_CLIENT_KEY", key.as_str())]].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(text) }
    };
    eventually("the port answers", START_LIMIT, || async { asked("first") }).await;
    asked("second").expect_err("nobody knows the second authority yet");
    put("second");
    eventually("the second authority is in force", START_LIMIT, || async { asked("second") }).await;
    asked("first").expect_err("the first authority is no longer in force");
}
