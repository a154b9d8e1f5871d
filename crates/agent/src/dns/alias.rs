//! What leads elsewhere: aliases (CNAME) and locations (SRV) whose target is a name. Targets of ours are answered by us, others by the
//! recursors, so that a client has what it needs in one answer.
//!
//! Invariants
//! - At most [`DEPTH_MAX`] aliases are followed one after another, and [`TARGETS_MAX`] targets of locations looked up.

use std::collections::BTreeSet;

use hickory_proto::op::Query as Asked;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use lictor_types::Refusal;

use super::answer::Sections;
use super::recurse;
use super::resolve::{Asking, Zones, resolved};

/// Aliases that are followed one after another.
const DEPTH_MAX: usize = 3;
/// Targets of locations that are looked up for one answer.
const TARGETS_MAX: usize = 8;

/// Whether there is anything to add to `sections`: a name that is another's, or locations whose addresses the recursors may know.
pub(super) fn leads_elsewhere(asking: &Asking<'_>, sections: &Sections) -> bool {
    let known: BTreeSet<&Name> = sections.additionals.iter().map(|record| &record.name).collect();
    sections.answers.iter().any(|record| match &record.data {
        RData::CNAME(_) => true,
        RData::SRV(location) => !asking.settings().recursors.is_empty() && !known.contains(&location.target),
        _ => false,
    })
}

/// Adds to an answer of the kind `kind` what it leads to.
pub(super) async fn follow(
    asking: &Asking<'_>,
    zones: &Zones,
    kind: RecordType,
    sections: &mut Sections,
) -> Result<(), Refusal> {
    if kind == RecordType::SRV {
        return follow_locations(asking, sections).await;
    }
    if kind == RecordType::CNAME {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    for _ in 0..DEPTH_MAX {
        let Some(Record { data: RData::CNAME(target), .. }) = sections.answers.last() else { return Ok(()) };
        let target = target.0.clone();
        if !seen.insert(target.to_lowercase()) {
            return Ok(());
        }
        let found = target_of(asking, zones, &target, kind).await?;
        if found.is_empty() {
            return Ok(());
        }
        sections.answers.extend(found);
    }
    Ok(())
}

async fn target_of(
    asking: &Asking<'_>,
    zones: &Zones,
    target: &Name,
    kind: RecordType,
) -> Result<Vec<Record>, Refusal> {
    let Some(domain) = zones.holding(target) else {
        return Ok(recurse::lookup(asking.settings(), &*asking.agent.rng, target, kind).await);
    };
    let query = Asked::query(target.clone(), kind);
    Ok(resolved(asking, &asking.subject(&query, domain)).await?.answers)
}

/// The addresses of targets that came without.
async fn follow_locations(asking: &Asking<'_>, sections: &mut Sections) -> Result<(), Refusal> {
    let known: BTreeSet<&Name> = sections.additionals.iter().map(|record| &record.name).collect();
    let targets: BTreeSet<Name> = sections
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(location) if !known.contains(&location.target) => Some(location.target.clone()),
            _ => None,
        })
        .take(TARGETS_MAX)
        .collect();
    for target in targets {
        sections
            .additionals
            .extend(recurse::lookup(asking.settings(), &*asking.agent.rng, &target, RecordType::A).await);
    }
    Ok(())
}
