//! The bytes of what logins and the mesh CA's settings are made of, pinned for ever; see `golden.rs`.

use lictor_types::authority::AuthoritySettings;
use lictor_types::command::{LoginRenewal, NameRight, NodeLogin};
use lictor_types::rpc::{CreateJoinToken, Login};
use lictor_types::token::JoinToken;
use lictor_types::{Answer, Command, Index, Operation, Query, Timestamp, Token};

use super::check;

const ID: &str = "0e3c2b8e-4f0c-4a83-9a34-2f1f6f0d7c11";

fn token() -> Token {
    Token {
        accessor_id: "11111111-2222-3333-4444-555555555555".into(),
        lookup: [3; 32],
        sealed_secret: vec![1, 2, 3],
        description: "for web".into(),
        management: false,
        service_identities: vec!["web".into()],
        node_identities: vec!["web-1".into()],
        create_time: Timestamp(5),
        expiration_time: Some(Timestamp(6)),
        create_index: Index(1),
        modify_index: Index(2),
        login_node: Some("web-1".into()),
        login_node_id: Some(ID.into()),
    }
}

#[test]
fn logins_keep_their_bytes() {
    for (name, right) in
        [("first-come", NameRight::FirstCome), ("named", NameRight::Named), ("proven", NameRight::Proven)]
    {
        let login = NodeLogin { token: token(), join_token: Some([4; 32].into()), right };
        check(&format!("command-node-login-{name}"), Command::NodeLogin(Box::new(login)));
    }
    let renewal = LoginRenewal { node: "web-1".parse().unwrap(), expiration_time: Timestamp(9) };
    check("command-login-renew", Command::LoginRenew(renewal));
    let join_token = JoinToken {
        lookup: [4; 32],
        services: vec!["web".into()],
        reusable: false,
        expiration_time: Timestamp(9),
        node: Some("web-1".parse().unwrap()),
    };
    check("command-join-token-set-named", Command::JoinTokenSet(join_token));
    let create =
        CreateJoinToken { services: vec!["web".into()], valid_seconds: 60, node: Some("web-1".parse().unwrap()) };
    check("operation-create-join-token-named", Operation::CreateJoinToken(create));
    check("operation-renew-login", Operation::RenewLogin("web-1".parse().unwrap()));
    let login = Login {
        proof: "p".into(),
        node: "web-1".parse().unwrap(),
        services: vec!["web".parse().unwrap()],
        csr: b"csr".to_vec(),
        node_id: Some(ID.into()),
    };
    check("login-request-with-id", login);
}

#[test]
fn the_settings_of_the_mesh_ca_keep_their_bytes() {
    let settings = AuthoritySettings { leaf_seconds: 7200, signatures_per_second: 7, modify_index: Index(4) };
    check("command-authority-configure", Command::AuthorityConfigure(settings.clone()));
    check("query-authority-settings", Query::AuthoritySettings);
    check("answer-authority-settings", Answer::AuthoritySettings(Some(settings)));
}
