//! Instances with several ports, and upstreams as releases from 1.22 write them.

use lictor_types::ports::ServicePort;
use lictor_types::service::Upstream;

use super::*;

#[test]
fn named_ports_and_upstreams_over_sockets() {
    let mut service = NodeService::new("web-proxy".parse().unwrap());
    service.ports = Some(vec![
        ServicePort { name: "http".into(), port: 8080, default: true },
        ServicePort { name: "admin".into(), port: 8081, default: false },
    ]);
    service.proxy.upstreams = vec![Upstream {
        local_bind_socket_path: Some("/run/db".into()),
        local_bind_socket_mode: Some("0600".into()),
        destination_peer: Some("east".into()),
        ..Upstream::new("db".into())
    }];
    check("service-with-ports", service);
}
