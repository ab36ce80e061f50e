//! Stored backups that are changed on purpose. What vouches for an object is mended: sizes and checksums in the record, the
//! record's seal, the index. So only what a test is about is wrong. FORMAT.md tells the forms; only zstd is forged.

use crate::os::chown_to_server;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of tar in a frame.
const FRAME: usize = 2 << 20;
/// Bytes of a tar block (GNU tar manual, "Basic Tar Format").
const BLOCK: usize = 512;
/// Longest path that a header holds.
const NAME: usize = 100;

/// The folder of a stored backup.
#[derive(Debug)]
pub struct Forge {
    folder: PathBuf,
}

impl Forge {
    /// The backup whose objects are in `folder`.
    pub fn open(folder: &Path) -> Forge {
        Forge { folder: folder.to_path_buf() }
    }

    /// The record.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn record(&self) -> Value {
        let bytes = self.read("backup.json");
        serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("backup.json: {e}"))
    }

    /// Writes the record with a seal.
    pub fn put_record(&self, record: &Value) {
        self.write("backup.json", &sealed(record));
    }

    /// The members of an archive, such as `base.tar.zst`.
    ///
    /// # Panics
    /// When it is no tar.
    pub fn archive(&self, name: &str) -> Vec<Member> {
        let tar = zstd::stream::decode_all(&self.read(name)[..]).expect("zstd");
        members(&tar)
    }

    /// Stores an archive and its index in place of the one of that name.
    ///
    /// # Panics
    /// When the record does not know it.
    pub fn put_archive(&self, name: &str, members: &[Member]) {
        let (mut tar, mut files) = (Vec::new(), Vec::new());
        for member in members {
            let at = member.append(&mut tar);
            if member.kind == b'0' {
                files.push((member.path.clone(), at, member.content.len()));
            }
        }
        tar.resize(tar.len() + 2 * BLOCK, 0);
        self.put_tar(name, &tar, &files);
    }

    fn put_tar(&self, name: &str, tar: &[u8], files: &[(Vec<u8>, usize, usize)]) {
        let mut index = format!("{{\"format\":1,\"archive\":{},\"codec\":\"zstd\"}}\n", json!(name));
        let mut stored = Vec::new();
        for (number, raw) in tar.chunks(FRAME).enumerate() {
            let frame = frame(raw);
            index.push_str(&format!(
                "{{\"frame\":{number},\"volume\":0,\"offset\":{},\"stored\":{},\"raw\":{},\"crc32c\":\"{}\"}}\n",
                stored.len(),
                frame.len(),
                raw.len(),
                hex(crc32c::crc32c(&frame))
            ));
            for (path, at, size) in files.iter().filter(|(_, at, _)| at / FRAME == number) {
                let path = json!(String::from_utf8_lossy(path));
                let at = at % FRAME;
                index.push_str(&format!(
                    "{{\"file\":{path},\"frame\":{number},\"at\":{at},\"size\":{size}}}\n"
                ));
            }
            stored.extend(frame);
        }
        let frames = tar.len().div_ceil(FRAME);
        index.push_str(&format!("{{\"end\":true,\"frames\":{frames}}}\n"));
        let mut record = self.record();
        let archives = record["archives"].as_array_mut().expect("archives");
        let archive = archives.iter_mut().find(|archive| archive["name"] == name).expect("an archive");
        archive["volumes"] = json!([object(name, &stored)]);
        archive["index"] = object(&format!("{name}.index"), index.as_bytes());
        archive["frames"] = frames.into();
        archive["tar_bytes"] = tar.len().into();
        self.write(name, &stored);
        self.write(&format!("{name}.index"), index.as_bytes());
        self.mend(record);
    }

    /// The manifest.
    pub fn manifest(&self) -> Vec<u8> {
        self.read("backup_manifest")
    }

    /// Stores a manifest as it is.
    pub fn put_manifest(&self, bytes: &[u8]) {
        let mut record = self.record();
        record["manifest"] = object("backup_manifest", bytes);
        self.write("backup_manifest", bytes);
        self.mend(record);
    }

    /// Stores a manifest whose own checksum, in the last line, is mended.
    ///
    /// # Panics
    /// When the manifest has no such line.
    pub fn put_summed_manifest(&self, text: &str) {
        use sha2::Digest;
        const LAST: &str = "\"Manifest-Checksum\": \"";
        let at = text.rfind(LAST).expect("a checksum");
        let body = &text[..at];
        let digest = sha2::Sha256::digest(body.as_bytes());
        let sum: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.put_manifest(format!("{body}{LAST}{sum}\"}}\n").as_bytes());
    }

    fn mend(&self, mut record: Value) {
        let archives = record["archives"].as_array().cloned().unwrap_or_default();
        let objects = archives.iter().flat_map(|archive| {
            let volumes = archive["volumes"].as_array().cloned().unwrap_or_default();
            volumes.into_iter().chain([archive["index"].clone()])
        });
        let sizes = objects.chain([record["manifest"].clone()]).filter_map(|object| object["size"].as_u64());
        record["stored_bytes"] = sizes.sum::<u64>().into();
        self.put_record(&record);
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Replaces the file, never what a hard link to it shares.
    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.join(name);
        drop(fs::remove_file(&path));
        fs::write(&path, bytes).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        chown_to_server(&path);
    }
}

/// JSON with a seal: FORMAT.md, section "Seal".
///
/// # Panics
/// For what is no object with members.
pub fn sealed(record: &Value) -> Vec<u8> {
    let mut plain = record.clone();
    plain.as_object_mut().expect("an object").remove("crc32c");
    let text = serde_json::to_string_pretty(&plain).expect("JSON");
    let body = format!("{}\n", text.strip_suffix("\n}").expect("members"));
    let crc = hex(crc32c::crc32c(body.as_bytes()));
    format!("{body}  ,\"crc32c\": \"{crc}\"\n}}\n").into_bytes()
}

fn object(name: &str, bytes: &[u8]) -> Value {
    json!({"name": name, "size": bytes.len(), "crc32c": hex(crc32c::crc32c(bytes))})
}

fn hex(crc: u32) -> String {
    format!("{crc:08x}")
}

/// One frame, as a backup writes it.
pub fn frame(raw: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::bulk::Compressor::new(1).expect("zstd");
    encoder.include_checksum(true).and_then(|()| encoder.include_contentsize(true)).expect("zstd");
    encoder.compress(raw).expect("zstd")
}

/// A member of a tar archive.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its path.
    pub path: Vec<u8>,
    /// `0` a file, `1` a hard link, `2` a symbolic link, `3` a device, `5` a folder.
    pub kind: u8,
    /// Where a link points to.
    pub link: Vec<u8>,
    /// What it holds.
    pub content: Vec<u8>,
    header: [u8; BLOCK],
}

impl Member {
    /// A member that belongs to the caller, with mode 0600 or, for a folder, 0700.
    pub fn new(path: &[u8], kind: u8, link: &[u8], content: &[u8]) -> Member {
        let mut header = [0; BLOCK];
        let mode: &[u8] = if kind == b'5' { b"0000700\0" } else { b"0000600\0" };
        for (at, field) in [
            (100, mode),
            (108, b"0000000\0"),
            (116, b"0000000\0"),
            (136, b"15000000000\0"),
            (257, b"ustar  \0"),
        ] {
            header[at..at + field.len()].copy_from_slice(field);
        }
        Member { path: path.to_vec(), kind, link: link.to_vec(), content: content.to_vec(), header }
    }

    /// Appends the member to a tar; returns where its content begins.
    fn append(&self, tar: &mut Vec<u8>) -> usize {
        for (kind, long) in [(b'L', &self.path), (b'K', &self.link)] {
            if long.len() > NAME {
                let text = [long, &b"\0"[..]].concat();
                Member::new(b"././@LongLink", kind, b"", &text).append(tar);
            }
        }
        let mut header = self.header;
        put(&mut header[..NAME], &self.path);
        put(&mut header[157..157 + NAME], &self.link);
        put(&mut header[124..136], format!("{:011o}", self.content.len()).as_bytes());
        header[156] = self.kind;
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut header[148..155], format!("{sum:06o}").as_bytes());
        tar.extend(header);
        let at = tar.len();
        tar.extend(&self.content);
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
        at
    }
}

/// Puts bytes into a field, filled up with zeros, cut when they are too many.
fn put(field: &mut [u8], bytes: &[u8]) {
    field.fill(0);
    let len = bytes.len().min(field.len());
    field[..len].copy_from_slice(&bytes[..len]);
}

fn members(tar: &[u8]) -> Vec<Member> {
    let text = |field: &[u8]| field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    let (mut found, mut at) = (Vec::new(), 0);
    let (mut long_path, mut long_link) = (None, None);
    while at + BLOCK <= tar.len() && tar[at] != 0 {
        let header: [u8; BLOCK] = tar[at..at + BLOCK].try_into().expect("a block");
        let size = text(&header[124..136]);
        let size =
            usize::from_str_radix(std::str::from_utf8(&size).expect("a size").trim(), 8).expect("a size");
        let content = tar[at + BLOCK..at + BLOCK + size].to_vec();
        at += BLOCK + size.next_multiple_of(BLOCK);
        match header[156] {
            b'L' => long_path = Some(text(&content)),
            b'K' => long_link = Some(text(&content)),
            kind => {
                let path = long_path.take().unwrap_or_else(|| text(&header[..NAME]));
                let link = long_link.take().unwrap_or_else(|| text(&header[157..157 + NAME]));
                found.push(Member { path, kind, link, content, header });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_back_as_they_went() {
        let long = [b'x'; 150];
        let written = [
            Member::new(b"base/", b'5', b"", b""),
            Member::new(&long, b'0', b"", &[7; 600]),
            Member::new(b"pg_tblspc/1", b'2', &long, b""),
        ];
        let mut tar = Vec::new();
        for member in &written {
            member.append(&mut tar);
        }
        let read = members(&tar);
        let seen = |members: &[Member]| {
            let parts = members.iter().map(|m| (m.path.clone(), m.kind, m.link.clone(), m.content.clone()));
            parts.collect::<Vec<_>>()
        };
        assert_eq!(seen(&read), seen(&written));
    }

    #[test]
    fn a_seal_is_the_checksum_of_what_stands_before_it() {
        let text = String::from_utf8(sealed(&json!({"format": 1}))).unwrap();
        let crc = hex(crc32c::crc32c(b"{\n  \"format\": 1\n"));
        assert_eq!(text, format!("{{\n  \"format\": 1\n  ,\"crc32c\": \"{crc}\"\n}}\n"));
    }
}
