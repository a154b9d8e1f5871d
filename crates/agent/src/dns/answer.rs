//! Records from rows. Pure: what was asked and what the catalog holds in, records out.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use lictor_runtime::Rng;
use lictor_types::query::AddressNames;
use lictor_types::{CheckServiceNode, CheckStatus, Node};

use crate::config::DnsConfig;

/// The most instances that are looked at for one answer, whatever the transport.
const INSTANCES_MAX: usize = 4096;
/// The most locations (SRV) in one answer, whatever the transport.
const LOCATIONS_MAX: usize = 1024;
/// Bytes in the longest text of a TXT record.
const TEXT_BYTES_MAX: usize = 255;

/// The sections of an answer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Sections {
    pub(super) code: Option<ResponseCode>,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) additionals: Vec<Record>,
    /// Another client may get another answer.
    pub(super) for_client: bool,
}

/// What an answer is about.
pub(super) struct Subject<'a> {
    /// The name as it was asked.
    pub(super) name: &'a Name,
    /// The domain it was asked in; names in the answer are in the same one.
    pub(super) domain: &'a Name,
    /// What was asked for.
    pub(super) kind: RecordType,
    /// The datacenter that answers.
    pub(super) datacenter: &'a str,
    /// The settings.
    pub(super) settings: &'a DnsConfig,
    /// Seconds since the epoch: the serial number of the zone.
    pub(super) now_seconds: u64,
}

impl Subject<'_> {
    /// The name does not exist.
    pub(super) fn absent(&self) -> Sections {
        Sections { code: Some(ResponseCode::NXDomain), authorities: vec![self.soa()], ..Sections::default() }
    }

    /// The name exists, with no data of this type.
    pub(super) fn no_data(&self) -> Sections {
        Sections { authorities: vec![self.soa()], ..Sections::default() }
    }

    /// A question for the zone itself: SOA or NS, with `servers` as its name servers.
    pub(super) fn zone(&self, servers: &[(String, IpAddr)]) -> Sections {
        let mut sections = Sections::default();
        let mut name_servers = Vec::new();
        for (node, address) in servers {
            let Some(target) = self.within(&[node.as_str(), "node", self.datacenter]) else { continue };
            name_servers.push(Record::from_rdata(self.domain.clone(), 0, RData::NS(NS(target.clone()))));
            sections.additionals.push(address_record(target, *address, self.node_ttl()));
        }
        if self.kind == RecordType::SOA {
            sections.answers.push(self.soa());
            sections.authorities = name_servers;
        } else {
            sections.answers = name_servers;
        }
        sections
    }

    /// `<hex>.addr`: an address of the other family goes into the additional section.
    pub(super) fn address(&self, address: IpAddr) -> Sections {
        let record = address_record(self.name.clone(), address, self.node_ttl());
        let mut sections = Sections::default();
        if self.takes(record.record_type()) {
            sections.answers.push(record)
        } else {
            sections.additionals.push(record)
        }
        sections
    }

    /// `<node>.node`. Its meta goes along as text.
    pub(super) fn node(&self, node: &Node) -> Sections {
        let mut sections = Sections::default();
        let ttl = self.node_ttl();
        let address = self.of_family(&node.address, |tag| node.tagged_addresses.get(tag).map(String::as_str));
        match address.parse::<IpAddr>() {
            Ok(address) => {
                let record = address_record(self.name.clone(), address, ttl);
                if self.takes(record.record_type()) {
                    sections.answers.push(record);
                }
            }
            Err(_) => {
                if self.kind != RecordType::TXT
                    && let Ok(target) = absolute(address)
                {
                    sections.answers.push(Record::from_rdata(self.name.clone(), ttl, RData::CNAME(CNAME(target))));
                }
            }
        }
        let texts =
            node.meta.iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| self.text(key, value, ttl));
        match self.kind {
            RecordType::TXT | RecordType::ANY => sections.answers.extend(texts),
            RecordType::A | RecordType::AAAA if self.settings.node_meta_txt => sections.additionals.extend(texts),
            _ => {}
        }
        sections
    }

    /// Instances of a service, in random order, without those that must not be used. The name does not exist when none is left.
    pub(super) fn service(&self, service: &str, rows: &[CheckServiceNode], rng: &dyn Rng) -> Sections {
        let mut rows = self.usable(rows);
        for last in (1..rows.len()).rev() {
            rows.swap(last, rng.below(last as u64 + 1) as usize);
        }
        self.found(service, rows, None)
    }

    /// All instances of a service that may be used, in the catalog's order: for who chooses among them and orders them later, and
    /// then takes [`Subject::most`] of them.
    pub(super) fn whole_service(&self, service: &str, rows: &[CheckServiceNode]) -> Sections {
        self.recorded(service, &self.usable(rows), None)
    }

    /// The most answers about a service, whatever the transport.
    pub(super) fn most(&self) -> usize {
        match (self.kind, self.settings.a_record_limit) {
            (RecordType::SRV, _) => LOCATIONS_MAX,
            (_, 0) => INSTANCES_MAX,
            (_, limit) => limit.min(INSTANCES_MAX),
        }
    }

    fn usable<'r>(&self, rows: &'r [CheckServiceNode]) -> Vec<&'r CheckServiceNode> {
        let is_usable = |row: &&CheckServiceNode| match worst(row) {
            CheckStatus::Passing => true,
            CheckStatus::Warning => !self.settings.only_passing,
            CheckStatus::Critical => false,
        };
        rows.iter().filter(is_usable).collect()
    }

    /// Instances as they were chosen and ordered. The name does not exist when there is none.
    pub(super) fn found(&self, service: &str, mut rows: Vec<&CheckServiceNode>, ttl: Option<Duration>) -> Sections {
        rows.truncate(if self.kind == RecordType::SRV { LOCATIONS_MAX } else { INSTANCES_MAX });
        let mut sections = self.recorded(service, &rows, ttl);
        sections.answers.truncate(self.most());
        sections
    }

    fn recorded(&self, service: &str, rows: &[&CheckServiceNode], ttl: Option<Duration>) -> Sections {
        if rows.is_empty() {
            return self.absent();
        }
        let ttl = ttl.map_or_else(|| self.service_ttl(service), seconds);
        let mut sections = Sections::default();
        let mut seen = BTreeSet::new();
        for row in rows {
            if self.kind == RecordType::SRV {
                self.service_location(row, worst(row), ttl, &mut seen, &mut sections);
            } else {
                self.service_address(row, ttl, &mut seen, &mut sections);
            }
        }
        if sections.answers.is_empty() {
            return self.no_data();
        }
        sections
    }

    fn service_address(&self, row: &CheckServiceNode, ttl: u32, seen: &mut BTreeSet<String>, sections: &mut Sections) {
        let address = self.effective_address(row);
        if !seen.insert(address.to_owned()) {
            return;
        }
        match address.parse::<IpAddr>() {
            Ok(ip) => {
                let record = address_record(self.name.clone(), ip, ttl);
                // A question for text about a service is answered with its addresses, as Consul does.
                if self.takes(record.record_type()) || (self.kind == RecordType::TXT && ip.is_ipv4()) {
                    sections.answers.push(record);
                }
            }
            // A name has at most one alias.
            Err(_) if sections.answers.is_empty() => {
                if let Ok(target) = absolute(address) {
                    sections.answers.push(Record::from_rdata(self.name.clone(), ttl, RData::CNAME(CNAME(target))));
                }
            }
            Err(_) => {}
        }
    }

    fn service_location(
        &self,
        row: &CheckServiceNode,
        worst: CheckStatus,
        ttl: u32,
        seen: &mut BTreeSet<String>,
        sections: &mut Sections,
    ) {
        let Some((target, address)) = self.location(row) else { return };
        let port = row.service.port;
        if !seen.insert(format!("{target} {port}")) {
            return;
        }
        let weights = row.service.weights;
        let weight = if worst == CheckStatus::Passing { weights.passing } else { weights.warning };
        let weight = u16::try_from(weight).unwrap_or(u16::MAX);
        let location = SRV::new(1, weight, port, target.clone());
        sections.answers.push(Record::from_rdata(self.name.clone(), ttl, RData::SRV(location)));
        if let Some(address) = address
            && seen.insert(format!("{target} {address}"))
        {
            sections.additionals.push(address_record(target, address, ttl));
        }
    }

    /// The address of an instance: its own, else its node's.
    fn effective_address<'r>(&self, row: &'r CheckServiceNode) -> &'r str {
        let (service, node) = (&row.service, &row.node);
        let own = self
            .of_family(&service.address, |tag| service.tagged_addresses.get(tag).map(|tagged| tagged.address.as_str()));
        if own.is_empty() {
            self.of_family(&node.address, |tag| node.tagged_addresses.get(tag).map(String::as_str))
        } else {
            own
        }
    }

    /// Of an address and those that are tagged beside it, the one of the family that is asked for.
    fn of_family<'r>(&self, plain: &'r str, tagged: impl Fn(&str) -> Option<&'r str>) -> &'r str {
        let tag = match self.kind {
            RecordType::A => "lan_ipv4",
            RecordType::AAAA => "lan_ipv6",
            _ => return plain,
        };
        tagged(tag).filter(|address| !address.is_empty()).unwrap_or(plain)
    }

    /// The names of what has an address: nodes, else services.
    pub(super) fn pointers(&self, names: &AddressNames) -> Sections {
        let named = |name: &str, word: &str| {
            let mut labels: Vec<&str> = name.split('.').collect();
            labels.extend([word, self.datacenter]);
            self.within(&labels)
        };
        let nodes = names.nodes.iter().filter_map(|name| named(name.as_str(), "node"));
        let services = names.services.iter().filter_map(|name| named(name.as_str(), "service"));
        let record = |target| Record::from_rdata(self.name.clone(), 0, RData::PTR(PTR(target)));
        let mut answers: Vec<Record> = nodes.map(record).collect();
        if answers.is_empty() {
            answers = services.map(record).collect();
        }
        if answers.is_empty() { self.absent() } else { Sections { answers, ..Sections::default() } }
    }

    /// The name that an instance is reached by, and its address where it is known.
    fn location(&self, row: &CheckServiceNode) -> Option<(Name, Option<IpAddr>)> {
        let own = row.service.address.as_str();
        let (text, is_own) = if own.is_empty() { (row.node.address.as_str(), false) } else { (own, true) };
        match text.parse::<IpAddr>() {
            Ok(address) if is_own => {
                let hex = match address {
                    IpAddr::V4(address) => format!("{:08x}", u32::from(address)),
                    IpAddr::V6(address) => format!("{:032x}", u128::from(address)),
                };
                Some((self.within(&[&hex, "addr", self.datacenter])?, Some(address)))
            }
            Ok(address) => {
                let mut labels: Vec<&str> = row.node.name.as_str().split('.').collect();
                labels.extend(["node", self.datacenter]);
                Some((self.within(&labels)?, Some(address)))
            }
            Err(_) => absolute(text).ok().map(|target| (target, None)),
        }
    }

    /// A name in the asked domain; none when the labels are too long for DNS.
    fn within(&self, labels: &[&str]) -> Option<Name> {
        Name::from_labels(labels.iter().map(|label| label.as_bytes())).ok()?.append_domain(self.domain).ok()
    }

    fn takes(&self, kind: RecordType) -> bool {
        self.kind == kind || self.kind == RecordType::ANY
    }

    fn soa(&self) -> Record {
        let numbers = self.settings.soa;
        let named = |label: &str| self.within(&[label]).unwrap_or_else(|| self.domain.clone());
        // Serial numbers wrap around by definition (RFC 1982).
        let serial = self.now_seconds as u32;
        let signed = |seconds: u32| i32::try_from(seconds).unwrap_or(i32::MAX);
        let soa = SOA::new(
            named("ns"),
            named("hostmaster"),
            serial,
            signed(numbers.refresh),
            signed(numbers.retry),
            signed(numbers.expire),
            numbers.min_ttl,
        );
        Record::from_rdata(self.domain.clone(), 0, RData::SOA(soa))
    }

    /// `key=value` by RFC 1464; a key that begins with `rfc1035-` gives the bare value.
    fn text(&self, key: &str, value: &str, ttl: u32) -> Record {
        let text = if key.to_ascii_lowercase().starts_with("rfc1035-") {
            value.to_owned()
        } else {
            format!("{}={value}", key.replace('`', "``").replace('=', "`="))
        };
        let pieces = text.as_bytes().chunks(TEXT_BYTES_MAX).collect();
        Record::from_rdata(self.name.clone(), ttl, RData::TXT(TXT::from_bytes(pieces)))
    }

    fn node_ttl(&self) -> u32 {
        seconds(self.settings.node_ttl)
    }

    /// Of the settings whose name fits, the longest.
    fn service_ttl(&self, service: &str) -> u32 {
        let ttls = &self.settings.service_ttl;
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => service.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)),
            None => service.eq_ignore_ascii_case(pattern),
        };
        let exact_first = |pattern: &str| (!pattern.ends_with('*'), pattern.len());
        let best = ttls.iter().filter(|(pattern, _)| fits(pattern)).max_by_key(|(pattern, _)| exact_first(pattern));
        best.map_or(0, |(_, ttl)| seconds(*ttl))
    }
}

/// The worst that a check of the instance or its node says.
fn worst(row: &CheckServiceNode) -> CheckStatus {
    row.checks.iter().map(|check| check.status).max().unwrap_or(CheckStatus::Passing)
}

fn address_record(name: Name, address: IpAddr, ttl: u32) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(name, ttl, data)
}

fn absolute(text: &str) -> Result<Name, ()> {
    let mut name = Name::from_ascii(text).map_err(|_| ())?;
    name.set_fqdn(true);
    if name.is_root() { Err(()) } else { Ok(name) }
}

fn seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)
}
