//! Configuration files that were outside the data directory, read into memory: they are few and small.

use crate::codec::frame;
use crate::repository::record::ArchiveContent;
use crate::repository::{Record, Storage};
use crate::stored::names::{self, hostile};
use crate::stored::objects::{ObjectReader, unwrap_io};
use crate::stored::tar_reader::{Kind, Member, Sink, TarReader};
use pg_ark_contract::{Error, ErrorKind, Result};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Most bytes that configuration may have in all.
const MAX_CONFIG: u64 = 64 << 20;

/// A configuration file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMember {
    /// Absolute path where it was.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// Content; none for a folder.
    pub content: Option<Vec<u8>>,
}

/// Reads `config.tar` of the backup in `folder`; nothing when it has none.
///
/// # Errors
/// `Corrupt` when it is damaged, hostile or too large; what the store said.
pub fn load(storage: &Storage, folder: &str, record: &Record) -> Result<Vec<ConfigMember>> {
    let Some(archive) = record.archive(ArchiveContent::Config) else { return Ok(Vec::new()) };
    if archive.tar_bytes > MAX_CONFIG {
        return Err(too_large());
    }
    let what = format!("archive \"{}\" does not decode", archive.name);
    let objects = ObjectReader::new(storage, folder, &archive.volumes);
    let mut tar = frame::stream(record.compression.codec, objects).map_err(|e| unwrap_io(&what, e))?;
    let mut bytes = Vec::new();
    tar.by_ref().take(MAX_CONFIG + 1).read_to_end(&mut bytes).map_err(|e| unwrap_io(&what, e))?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(too_large());
    }
    let members = parse(&bytes)?;
    check_listed(&members, &record.config_files)?;
    Ok(members)
}

/// What the record does not list is not of the backup.
fn check_listed(members: &[ConfigMember], listed: &[String]) -> Result<()> {
    let is_listed = |path: &Path| {
        let shown = path.to_string_lossy();
        listed.iter().any(|name| *name == shown || Path::new(name) == path)
    };
    match members.iter().find(|member| !is_listed(&member.path)) {
        None => Ok(()),
        Some(member) => Err(hostile(
            member.path.as_os_str().as_encoded_bytes(),
            "the record does not list it as configuration",
        )),
    }
}

/// Reads a whole tar of configuration.
///
/// # Errors
/// `Corrupt` when it is damaged or hostile.
pub fn parse(bytes: &[u8]) -> Result<Vec<ConfigMember>> {
    let mut collector = Collector { bytes, members: Vec::new() };
    let mut reader = TarReader::new();
    reader.feed(bytes, &mut collector)?;
    reader.finish()?;
    Ok(collector.members)
}

fn too_large() -> Error {
    Error::new(ErrorKind::Corrupt, "the archive of configuration files is larger than any could be")
        .hint("Restore without it: --config skip.")
}

struct Collector<'a> {
    bytes: &'a [u8],
    members: Vec<ConfigMember>,
}

impl Sink for Collector<'_> {
    fn member(&mut self, member: Member) -> Result<()> {
        let path = Path::new("/").join(names::safe_path(&member.path)?);
        let content = match member.kind {
            Kind::File => Some(Vec::new()),
            Kind::Directory => None,
            Kind::Link(_) => return Err(hostile(&member.path, "it is a link where none belongs")),
        };
        if self.members.iter().any(|m| m.path == path) {
            return Err(hostile(&member.path, "it is there twice"));
        }
        let mode = member.mode & 0o777;
        self.members.push(ConfigMember { path, mode, content });
        Ok(())
    }

    fn content(&mut self, _offset: u64, range: Range<usize>) -> Result<()> {
        let content = self.members.last_mut().and_then(|member| member.content.as_mut());
        content.into_iter().for_each(|content| content.extend_from_slice(&self.bytes[range.clone()]));
        Ok(())
    }
}
