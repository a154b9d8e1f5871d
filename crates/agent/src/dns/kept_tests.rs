//! When a kept answer is given, and when not.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query as Asked, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use lictor_types::{Answer, CheckStatus, Credential, Refusal};

use super::door::Door;
use super::packet;
use super::prepared::Scratch;
use super::resolve::{Transport, reply};
use super::tests::row;
use crate::Standing;
use crate::agent::Agent;
use crate::http::double::{Double, agent, at};
use crate::tokens::TokenKind;

struct Setting {
    double: Arc<Double>,
    agent: Arc<Agent>,
    door: Arc<Door>,
}

impl Setting {
    fn new(fragment: &str) -> Self {
        let double = Double::answering(Err(Refusal::no_leader()));
        let agent = agent(&double, fragment);
        let door = Door::of(&agent, "");
        let setting = Self { double, agent, door };
        setting.stands(2, Duration::ZERO);
        setting
    }

    fn stands(&self, version: u64, last_contact: Duration) {
        *self.double.standing.lock() = Some(Standing { version, last_contact });
    }

    /// From now on the catalog has these instances.
    fn has(&self, addresses: &[&str]) {
        let rows = addresses.iter().enumerate();
        let rows: Vec<_> =
            rows.map(|(at, address)| row(&format!("n{at}"), address, "", CheckStatus::Passing)).collect();
        *self.double.reads.lock() = vec![at(5, Answer::CheckServiceNodes(rows.into()))];
    }

    async fn ask(&self) -> Vec<String> {
        let bytes = reply(&self.door, &question("web.service.consul."), Transport::Udp, None).await.unwrap();
        let message = Message::from_vec(&bytes).unwrap();
        assert!(matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain));
        let mut answers: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
        answers.sort();
        answers
    }

    fn is_there(&self) -> bool {
        let packet = question("WEB.service.consul.");
        let asked = packet::read(&packet).unwrap();
        let Some(terms) = self.door.terms() else { return false };
        self.door.at_once(&asked, &terms, Transport::Udp, &mut Scratch::default(), &mut Vec::new())
    }

    fn reads(&self) -> usize {
        self.double.asked.lock().reads.len()
    }
}

fn question(name: &str) -> Vec<u8> {
    let mut request = Message::new(7, MessageType::Query, OpCode::Query);
    request.add_query(Asked::query(Name::from_ascii(name).unwrap(), RecordType::A));
    request.to_vec().unwrap()
}

#[tokio::test]
async fn an_answer_is_read_once_for_one_state() {
    let setting = Setting::new("");
    setting.has(&["10.0.0.1", "10.0.0.2"]);
    assert!(!setting.is_there());
    for _ in 0..5 {
        assert_eq!(setting.ask().await, ["10.0.0.1", "10.0.0.2"]);
    }
    assert_eq!(setting.reads(), 1);
    assert!(setting.is_there());
}

#[tokio::test]
async fn an_answer_of_an_older_state_is_never_given() {
    let setting = Setting::new("");
    let both: &[&str] = &["10.0.0.1", "10.0.0.2"];
    let mut version = 2;
    for (now, addresses) in [both, &["10.0.0.2"], &[], &["10.0.0.2"], both, &[], both].into_iter().enumerate() {
        setting.has(addresses);
        version += 2;
        setting.stands(version, Duration::ZERO);
        assert!(!setting.is_there());
        assert_eq!(setting.ask().await, addresses);
        assert_eq!(setting.ask().await, addresses);
        assert_eq!(setting.reads(), now + 1);
    }
}

#[tokio::test]
async fn the_same_rows_at_another_state_are_not_written_anew() {
    let setting = Setting::new("");
    setting.has(&["10.0.0.1"]);
    setting.ask().await;
    // The double gives the same rows again: shared ones, as the state does.
    setting.stands(4, Duration::ZERO);
    assert!(!setting.is_there());
    setting.ask().await;
    assert!(setting.is_there());
    // Not twice the same: the first state is over.
    setting.stands(2, Duration::ZERO);
    assert!(!setting.is_there());
}

#[tokio::test]
async fn no_answer_is_kept_under_other_settings_or_another_token() {
    let setting = Setting::new("dns_config {\n max_stale = \"5s\"\n}\n");
    setting.has(&["10.0.0.1"]);
    setting.ask().await;
    assert!(setting.is_there());
    setting.agent.tokens.replace(TokenKind::Dns, Credential::new("another"));
    assert!(!setting.is_there());
    setting.ask().await;
    assert!(setting.is_there());
    let mut config = crate::config::Config::clone(&setting.agent.config.load());
    config.dns.only_passing = true;
    setting.agent.config.store(Arc::new(config));
    assert!(!setting.is_there());
    setting.ask().await;
    assert!(setting.is_there());
    setting.stands(2, Duration::from_secs(6));
    assert!(!setting.is_there(), "the leader was not heard of for longer than an answer may be old");
    // What a holder is refused is not given to it either: the token may have expired.
    *setting.double.standing.lock() = None;
    assert!(!setting.is_there());
}

#[tokio::test]
async fn where_every_answer_must_be_fresh_none_is_kept() {
    let setting = Setting::new("dns_config {\n allow_stale = false\n}\n");
    setting.has(&["10.0.0.1"]);
    for turn in 1..4 {
        setting.ask().await;
        assert_eq!(setting.reads(), turn);
        assert!(!setting.is_there());
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_answered_once_is_answered_without_a_server() {
    let setting = Setting::new("");
    *setting.double.standing.lock() = None;
    setting.has(&["10.0.0.1"]);
    assert_eq!(setting.ask().await, ["10.0.0.1"]);
    setting.has(&["10.0.0.2"]);
    assert_eq!(setting.ask().await, ["10.0.0.2"], "a server that answers has the last word");
    *setting.double.reads.lock() = vec![Err(Refusal::no_leader())];
    assert_eq!(setting.ask().await, ["10.0.0.2"]);
    let other = reply(&setting.door, &question("other.service.consul."), Transport::Udp, None).await.unwrap();
    assert_eq!(Message::from_vec(&other).unwrap().metadata.response_code, ResponseCode::ServFail);
    let fresh = Setting::new("dns_config { allow_stale = false }");
    *fresh.double.standing.lock() = None;
    fresh.has(&["10.0.0.1"]);
    assert_eq!(fresh.ask().await, ["10.0.0.1"]);
    *fresh.double.reads.lock() = vec![Err(Refusal::no_leader())];
    let stale = reply(&fresh.door, &question("web.service.consul."), Transport::Udp, None).await.unwrap();
    assert_eq!(Message::from_vec(&stale).unwrap().metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_flood_of_names_that_are_not_there_drives_out_none_that_is() {
    let setting = Setting::new("");
    setting.has(&["10.0.0.1"]);
    setting.ask().await;
    setting.has(&[]);
    for number in 0..10_000 {
        let packet = question(&format!("nobody-{number}.service.consul."));
        reply(&setting.door, &packet, Transport::Udp, None).await.unwrap();
    }
    assert!(setting.is_there());
    assert!(setting.door.kept_bytes() < 3 * 1024 * 1024, "{} bytes", setting.door.kept_bytes());
}

#[tokio::test]
async fn names_that_are_there_are_kept_within_a_bound() {
    let setting = Setting::new("");
    let addresses: Vec<String> = (0..200).map(|at| format!("10.0.0.{at}")).collect();
    setting.has(&addresses.iter().map(String::as_str).collect::<Vec<_>>());
    for number in 0..2_000 {
        let packet = question(&format!("many-{number}.service.consul."));
        reply(&setting.door, &packet, Transport::Udp, None).await.unwrap();
    }
    let bytes = setting.door.kept_bytes();
    assert!((4 << 20..9 << 20).contains(&bytes), "{bytes} bytes");
}
