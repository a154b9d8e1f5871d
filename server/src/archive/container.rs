//! The archive: `gzip(tar{meta.json, state.bin, SHA256SUMS})`, Consul's container with our state in it.

use std::io::{self, Read, Write};

use aws_lc_rs::digest::{Context, SHA256};
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use lictor_state::parts::{Parts, SectionSize};
use lictor_state::{SnapshotError, Store, section_name};
use serde::{Deserialize, Serialize};

const META: &str = "meta.json";
const STATE: &str = "state.bin";
const SUMS: &str = "SHA256SUMS";
/// A tar file is made of these.
const BLOCK: usize = 512;
/// Bytes of the largest description or list of checksums.
const SMALL_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of the largest state that is read from an archive.
pub const STATE_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Bytes of the parts that a state is read in.
pub const PART_BYTES: usize = 256 * 1024;

/// What `meta.json` says. The first fields are Consul's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Meta {
    /// Of the container; 1.
    pub version: u32,
    /// `term-index-milliseconds`.
    #[serde(rename = "ID")]
    pub id: String,
    /// The state's index.
    pub index: u64,
    /// Raft's term.
    pub term: u64,
    /// Bytes of the state.
    #[serde(default)]
    pub size: u64,
    /// What only ours say; none in an archive that Consul made.
    #[serde(default)]
    pub lictor: Option<Origin>,
}

/// Where an archive comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Origin {
    /// Our release.
    pub release: String,
    /// The datacenter.
    pub datacenter: String,
    /// The cluster.
    #[serde(rename = "ClusterID")]
    pub cluster_id: String,
    /// The key that its secrets are sealed with.
    #[serde(rename = "SealKeyID")]
    pub seal_key_id: String,
}

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read, or its checksums do not match.
    #[error("failed to read snapshot file: {0}")]
    Read(#[from] io::Error),
    /// It is whole, but what is in it is not ours.
    #[error(
        "failed to read snapshot file: it was made by Consul, whose state this release cannot read: carry keys over with \
         `consul kv export` and `lictor kv import`"
    )]
    OfConsul,
    /// A later release wrote it, or its state is damaged in spite of the checksums.
    #[error("failed to read snapshot file: {0}")]
    State(#[from] SnapshotError),
    /// Other than whoever takes the state wants it.
    #[error("{0}")]
    Refused(String),
}

fn damaged(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// Counts and sums what is written.
struct Summing {
    bytes: u64,
    digest: Context,
}

impl Summing {
    fn new() -> Self {
        Self { bytes: 0, digest: Context::new(&SHA256) }
    }

    fn finish(self) -> (u64, String) {
        (self.bytes, hex(self.digest.finish().as_ref()))
    }
}

impl Write for Summing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the archive of `store`. The state is encoded twice, first for its length and checksum: it is never in memory.
///
/// # Errors
/// As `to` reports them.
pub fn write(store: &Store, mut meta: Meta, to: impl Write) -> io::Result<()> {
    let mut summing = io::BufWriter::with_capacity(PART_BYTES, Summing::new());
    store.write_snapshot(&mut summing)?;
    let (size, state_sum) = summing.into_inner().map_err(io::IntoInnerError::into_error)?.finish();
    meta.size = size;
    let meta = serde_json::to_vec(&meta).map_err(io::Error::other)?;
    let mut meta_sum = Summing::new();
    meta_sum.write_all(&meta)?;
    let (_, meta_sum) = meta_sum.finish();
    let sums = format!("{meta_sum}  {META}\n{state_sum}  {STATE}\n");

    let zipped = GzEncoder::new(to, Compression::fast());
    let mut tar = io::BufWriter::with_capacity(PART_BYTES, zipped);
    entry(&mut tar, META, meta.len() as u64, |tar| tar.write_all(&meta))?;
    entry(&mut tar, STATE, size, |tar| store.write_snapshot(tar))?;
    entry(&mut tar, SUMS, sums.len() as u64, |tar| tar.write_all(sums.as_bytes()))?;
    tar.write_all(&[0; 2 * BLOCK])?;
    let zipped = tar.into_inner().map_err(io::IntoInnerError::into_error)?;
    zipped.finish()?.flush()
}

fn entry<W: Write>(to: &mut W, name: &str, size: u64, body: impl FnOnce(&mut W) -> io::Result<()>) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    to.write_all(header.as_bytes())?;
    body(to)?;
    let padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
    to.write_all(&[0; BLOCK][..padding])
}

/// Sums what is read.
struct SummingReader<R> {
    from: R,
    summing: Summing,
}

impl<R: Read> Read for SummingReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(to)?;
        self.summing.write_all(&to[..read])?;
        Ok(read)
    }
}

/// Reads an archive to its end, gives its state to `take` part by part, and compares every checksum. What `take` was given
/// counts only when this returns without an error.
///
/// # Errors
/// The archive is damaged, or `take` refuses.
pub fn read(
    from: impl Read,
    mut take: impl FnMut(&Meta, Vec<u8>) -> Result<(), ArchiveError>,
) -> Result<Contents, ArchiveError> {
    let mut unzipped = GzDecoder::new(io::BufReader::with_capacity(PART_BYTES, from));
    let (mut meta, mut sums, mut sections) = (None, Sums::default(), None);
    {
        let mut archive = tar::Archive::new(&mut unzipped);
        for entry in archive.entries()? {
            let entry = entry?;
            let name = entry.path_bytes().into_owned();
            match (&name[..], &meta, &sections) {
                (b"meta.json", None, None) => {
                    let bytes = small(entry, META)?;
                    sums.meta = sum_of(&bytes);
                    let found: Meta = serde_json::from_slice(&bytes).map_err(|it| damaged(format!("{META}: {it}")))?;
                    if found.version != 1 {
                        return Err(damaged(format!("unsupported version {}", found.version)).into());
                    }
                    if found.lictor.is_none() {
                        return Err(ArchiveError::OfConsul);
                    }
                    meta = Some(found);
                }
                (b"state.bin", Some(meta), None) => {
                    if entry.size() > STATE_BYTES_MAX {
                        return Err(damaged(format!("{STATE} has more than {STATE_BYTES_MAX} bytes")).into());
                    }
                    let mut parts = Parts::new(SummingReader { from: entry, summing: Summing::new() }, PART_BYTES);
                    for part in parts.by_ref() {
                        take(meta, part?)?;
                    }
                    sections = Some(parts.sizes().clone());
                    let (bytes, sum) = parts.into_inner().summing.finish();
                    if bytes != meta.size {
                        return Err(damaged(format!("{STATE} has {bytes} bytes and not {}", meta.size)).into());
                    }
                    sums.state = sum;
                }
                (b"SHA256SUMS", Some(_), Some(_)) if !sums.checked => sums.check(&small(entry, SUMS)?)?,
                _ => {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    return Err(damaged(format!("unexpected file {name:?} in snapshot")).into());
                }
            }
        }
    }
    // The end of the tar file is not that of the archive: behind it is its checksum.
    io::copy(&mut unzipped, &mut io::sink())?;
    let mut rest = [0];
    if unzipped.into_inner().read(&mut rest)? > 0 {
        return Err(damaged("bytes follow the end of the snapshot").into());
    }
    match (meta, sections) {
        (Some(meta), Some(sections)) if sums.checked => Ok(Contents { meta, sections: sections.into_iter().collect() }),
        _ => Err(damaged(format!("it must hold {META}, {STATE} and {SUMS}")).into()),
    }
}

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Its description.
    pub meta: Meta,
    /// How much of what, by the number of the section.
    pub sections: Vec<(u32, SectionSize)>,
}

impl Contents {
    /// How much of what, by name.
    pub fn named(&self) -> impl Iterator<Item = (String, SectionSize)> + '_ {
        self.sections.iter().map(|(number, size)| {
            (section_name(*number).map_or_else(|| format!("Section {number}"), str::to_owned), *size)
        })
    }
}

/// Reads a whole archive and throws its state away: whether it could be restored.
///
/// # Errors
/// It could not.
pub fn verify(from: impl Read) -> Result<Contents, ArchiveError> {
    read(from, |_, part| Ok(Store::new().read_part(&part)?))
}

#[derive(Default)]
struct Sums {
    meta: String,
    state: String,
    checked: bool,
}

impl Sums {
    fn check(&mut self, listed: &[u8]) -> io::Result<()> {
        let expected = format!("{}  {META}\n{}  {STATE}\n", self.meta, self.state);
        let text = std::str::from_utf8(listed).map_err(|_| damaged(format!("{SUMS} is not text")))?;
        let (mut listed, mut expected): (Vec<_>, Vec<_>) = (text.lines().collect(), expected.lines().collect());
        listed.sort_unstable();
        expected.sort_unstable();
        if listed != expected {
            return Err(damaged("hash check failed: the checksums of its files do not match"));
        }
        self.checked = true;
        Ok(())
    }
}

fn sum_of(bytes: &[u8]) -> String {
    hex(aws_lc_rs::digest::digest(&SHA256, bytes).as_ref())
}

fn small(mut entry: tar::Entry<'_, impl Read>, name: &str) -> io::Result<Vec<u8>> {
    if entry.size() > SMALL_FILE_BYTES_MAX {
        return Err(damaged(format!("{name} has more than {SMALL_FILE_BYTES_MAX} bytes")));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use lictor_types::command::{KvCommand, KvVerb};
    use lictor_types::{Command, Envelope, Timestamp};

    use super::*;

    fn store() -> Store {
        let mut store = Store::new();
        for number in 0..40_u8 {
            let value = vec![number; 50];
            let command = KvCommand { verb: KvVerb::Set, key: format!("k/{number}"), value, flags: 0 };
            store.apply(&Envelope {
                request_id: [number; 16],
                leader_time: Timestamp(5),
                command: Command::Kv(command),
            });
        }
        store.for_archive()
    }

    fn archive(store: &Store) -> Vec<u8> {
        let meta = Meta { version: 1, lictor: Some(Origin::default()), ..Meta::default() };
        let mut bytes = Vec::new();
        write(store, meta, &mut bytes).unwrap();
        bytes
    }

    fn restored(bytes: &[u8]) -> Result<Vec<u8>, ArchiveError> {
        let mut store = Store::new();
        read(bytes, |_, part| Ok(store.read_part(&part)?))?;
        Ok(store.snapshot())
    }

    #[test]
    fn what_was_written_is_read_back() {
        let store = store();
        assert!(restored(&archive(&store)).unwrap() == store.snapshot());
        let contents = verify(&archive(&store)[..]).unwrap();
        let kv = contents.named().find(|(name, _)| name == "KVS").unwrap().1;
        assert_eq!(kv.rows, 40);
        assert_eq!(contents.meta.size, store.snapshot().len() as u64);
    }

    #[test]
    fn no_flipped_byte_and_no_missing_end_is_taken_for_the_state() {
        let store = store();
        let (bytes, state) = (archive(&store), store.snapshot());
        let mut refused = 0;
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            match restored(&flipped) {
                // Time, level and system in the head of gzip, and codes that a block never uses, are no part of what it carries.
                Ok(read) => assert!(read == state, "byte {at}"),
                Err(_) => refused += 1,
            }
            assert!(restored(&bytes[..at]).is_err(), "the first {at} bytes are taken");
        }
        assert!(refused * 10 >= bytes.len() * 9, "{refused} of {}", bytes.len());
        assert!(restored(&[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn an_archive_of_consul_is_told_from_a_damaged_one() {
        let mut bytes = Vec::new();
        write(&store(), Meta { version: 1, ..Meta::default() }, &mut bytes).unwrap();
        let error = restored(&bytes).unwrap_err();
        assert!(matches!(error, ArchiveError::OfConsul), "{error}");
    }

    /// What release 0.1.0 saved must be restored by every later one: an agent of one key, with its mesh CA.
    #[test]
    fn the_archive_of_the_first_release_is_read() {
        let golden = include_bytes!("../../golden/release-0.1.0.snap");
        let contents = verify(&golden[..]).unwrap();
        for (name, rows) in [("KVS", 1), ("Node", 1), ("ConnectCA", 1), ("Cluster", 1)] {
            let size = contents.named().find(|(section, _)| section == name).unwrap().1;
            assert_eq!(size.rows, rows, "{name}");
        }
        assert!(!restored(golden).unwrap().is_empty());
    }
}
