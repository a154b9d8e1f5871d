//! What a member remembers of its pool over a restart, as lines in Serf's format: a file of either is read by the other.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::event::{Change, Event};
use crate::wire::serf::Clocks;

/// A file below this size is not compacted.
const SMALLEST_COMPACTED: u64 = 128 * 1024;
/// About how long the lines of a member are.
const BYTES_PER_MEMBER: u64 = 128;
/// How much larger than needed a file may become.
const SLACK: u64 = 2;

/// Who was alive, and the clocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Where those were who were alive, by name.
    pub alive: BTreeMap<String, SocketAddr>,
    /// The last times that were seen.
    pub clocks: Clocks,
    rejoin_after_leave: bool,
    left: bool,
    lines: String,
}

impl Snapshot {
    /// One that remembers nothing.
    pub fn new(rejoin_after_leave: bool) -> Self {
        Self { rejoin_after_leave, ..Self::default() }
    }

    /// Takes up a file's lines. What cannot be read is passed over: the last line may be half written.
    pub fn replay(&mut self, text: &str) {
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let (verb, rest) = line.split_once(": ").unwrap_or((line, ""));
            let number = || rest.parse::<u64>().ok();
            match verb {
                "alive" => {
                    if let Some((name, address)) = rest.rsplit_once(' ')
                        && let Ok(address) = address.parse()
                    {
                        self.alive.insert(name.to_owned(), address);
                    }
                }
                "not-alive" => {
                    self.alive.remove(rest);
                }
                "clock" => self.clocks.members = number().unwrap_or(self.clocks.members),
                "event-clock" => self.clocks.events = number().unwrap_or(self.clocks.events),
                "query-clock" => self.clocks.queries = number().unwrap_or(self.clocks.queries),
                "leave" if !self.rejoin_after_leave => {
                    self.alive.clear();
                    self.clocks = Clocks::default();
                }
                _ => {}
            }
        }
    }

    /// Something happened.
    pub fn note(&mut self, event: &Event) {
        let Event::Member { change, member } = event else { return };
        if self.left {
            return;
        }
        let (name, address) = (member.record.name(), member.record.address());
        match change {
            Change::Joined => {
                self.alive.insert(name.to_owned(), address);
                self.line(format_args!("alive: {name} {address}"));
            }
            Change::Left | Change::Failed => {
                self.alive.remove(name);
                self.line(format_args!("not-alive: {name}"));
            }
            Change::Updated | Change::Reaped => {}
        }
    }

    /// The clocks have gone on.
    pub fn note_clocks(&mut self, now: Clocks) {
        if self.left {
            return;
        }
        if now.members > self.clocks.members {
            self.line(format_args!("clock: {}", now.members));
        }
        if now.events > self.clocks.events {
            self.line(format_args!("event-clock: {}", now.events));
        }
        if now.queries > self.clocks.queries {
            self.line(format_args!("query-clock: {}", now.queries));
        }
        self.clocks = Clocks {
            members: now.members.max(self.clocks.members),
            events: now.events.max(self.clocks.events),
            queries: now.queries.max(self.clocks.queries),
        };
    }

    /// The member has left: nothing is noted from now on.
    pub fn leave(&mut self) {
        self.line(format_args!("leave"));
        self.left = true;
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing into a text does not fail.
        let _ = writeln!(self.lines, "{line}");
    }

    pub(crate) fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    pub(crate) fn take_lines(&mut self) -> String {
        std::mem::take(&mut self.lines)
    }

    /// How large the file may become before it is compacted.
    pub(crate) fn largest_file(&self) -> u64 {
        (self.alive.len() as u64 * BYTES_PER_MEMBER * SLACK).max(SMALLEST_COMPACTED)
    }

    /// A file that says the same in as few lines as it takes.
    pub(crate) fn compacted(&self) -> String {
        let mut text = String::new();
        for (name, address) in &self.alive {
            let _ = writeln!(text, "alive: {name} {address}");
        }
        let Clocks { members, events, queries } = self.clocks;
        let _ = write!(text, "clock: {members}\nevent-clock: {events}\nquery-clock: {queries}\n");
        if self.left {
            text.push_str("leave\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "alive: a 10.0.0.1:8301\nalive: b c 10.0.0.2:8301\nclock: 7\nevent-clock: 3\nalive: d 10.0.0.4:1\n\
                        not-alive: d\n# a remark\ncoordinate: {}\nquery-clock: 2\nalive: e 10.0.0";

    #[test]
    fn a_file_of_serfs_is_read_and_its_torn_end_passed_over() {
        let mut snapshot = Snapshot::new(false);
        snapshot.replay(FILE);
        assert_eq!(snapshot.alive.keys().collect::<Vec<_>>(), ["a", "b c"]);
        assert_eq!(snapshot.clocks, Clocks { members: 7, events: 3, queries: 2 });
        let mut again = Snapshot::new(false);
        again.replay(&snapshot.compacted());
        assert_eq!(again, snapshot);
    }

    #[test]
    fn who_left_joins_nobody_unless_told_to() {
        for (rejoin, known) in [(false, 0), (true, 2)] {
            let mut snapshot = Snapshot::new(rejoin);
            snapshot.replay(&format!("{}\nleave\n", FILE.rsplit_once('\n').unwrap().0));
            assert_eq!(snapshot.alive.len(), known);
        }
    }

    #[test]
    fn clocks_are_written_when_they_move() {
        let mut snapshot = Snapshot::new(false);
        snapshot.note_clocks(Clocks { members: 2, events: 0, queries: 0 });
        snapshot.note_clocks(Clocks { members: 2, events: 1, queries: 0 });
        assert_eq!(snapshot.take_lines(), "clock: 2\nevent-clock: 1\n");
        snapshot.leave();
        snapshot.note_clocks(Clocks { members: 9, events: 9, queries: 9 });
        assert_eq!(snapshot.take_lines(), "leave\n");
    }
}
