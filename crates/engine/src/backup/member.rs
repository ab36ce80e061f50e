//! Tar headers of members. PostgreSQL writes ustar (src/port/tar.c); paths over 100 bytes get a GNU long-name member.

use std::os::unix::fs::MetadataExt;

/// Tar is made of blocks of this many bytes.
pub const BLOCK: usize = 512;
/// Two zero blocks end a tar.
pub const TRAILER: usize = 2 * BLOCK;

/// Attributes of a member.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time in unix seconds.
    pub mtime: i64,
}

impl Attributes {
    /// Those of a file.
    pub fn of(meta: &std::fs::Metadata) -> Self {
        Attributes { mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid(), mtime: meta.mtime() }
    }
}

/// Kind of a member.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    /// A file of so many bytes.
    File(u64),
    /// A folder.
    Directory,
    /// A symbolic link to this target.
    Link(&'a [u8]),
}

/// Bytes of padding after `size` bytes of content.
pub fn padding(size: u64) -> usize {
    ((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64) as usize
}

/// The header blocks of a member: one, or more when the path or the link target is long.
pub fn header(path: &[u8], kind: Kind<'_>, attributes: Attributes) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK);
    let mut name = path.to_vec();
    if matches!(kind, Kind::Directory) && !name.ends_with(b"/") {
        name.push(b'/');
    }
    let link = if let Kind::Link(target) = kind { target } else { b"" };
    if link.len() > 100 {
        long_name(&mut out, tar::EntryType::GNULongLink, link);
    }
    if name.len() > 100 {
        long_name(&mut out, tar::EntryType::GNULongName, &name);
    }
    let mut header = blank(&name);
    header.as_old_mut().linkname[..link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
    header.set_mode(attributes.mode);
    header.set_uid(u64::from(attributes.uid));
    header.set_gid(u64::from(attributes.gid));
    header.set_mtime(attributes.mtime.max(0).unsigned_abs());
    let (entry_type, size) = match kind {
        Kind::File(size) => (tar::EntryType::Regular, size),
        Kind::Directory => (tar::EntryType::Directory, 0),
        Kind::Link(_) => (tar::EntryType::Symlink, 0),
    };
    header.set_entry_type(entry_type);
    header.set_size(size);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out
}

fn long_name(out: &mut Vec<u8>, entry_type: tar::EntryType, name: &[u8]) {
    let mut header = blank(b"././@LongLink");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(entry_type);
    header.set_size(name.len() as u64 + 1);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(name);
    out.resize(out.len() + 1 + padding(name.len() as u64 + 1), 0);
}

fn blank(name: &[u8]) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    let len = name.len().min(100);
    header.as_old_mut().name[..len].copy_from_slice(&name[..len]);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn members_are_read_back_by_the_tar_crate() {
        let attributes = Attributes { mode: 0o600, uid: 1, gid: 2, mtime: 1_700_000_000 };
        let long = vec![b'x'; 300];
        let mut bytes = Vec::new();
        for (path, content) in
            [(&b"PG_VERSION"[..], &b"15\n"[..]), (&long[..], b""), ("größe 1".as_bytes(), b"abc")]
        {
            bytes.extend(header(path, Kind::File(content.len() as u64), attributes));
            bytes.extend(content);
            bytes.resize(bytes.len() + padding(content.len() as u64), 0);
        }
        bytes.extend(header(b"pg_tblspc/1", Kind::Link(&long), attributes));
        bytes.extend(header(b"base", Kind::Directory, attributes));
        bytes.resize(bytes.len() + TRAILER, 0);
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            seen.push((
                entry.path_bytes().into_owned(),
                entry.link_name_bytes().map(|l| l.into_owned()),
                content,
            ));
        }
        assert_eq!(seen[0], (b"PG_VERSION".to_vec(), None, b"15\n".to_vec()));
        assert_eq!(seen[1].0, long);
        assert_eq!(seen[2].0, "größe 1".as_bytes());
        assert_eq!(seen[3], (b"pg_tblspc/1".to_vec(), Some(long), vec![]));
        assert_eq!(seen[4].0, b"base/");
    }
}
