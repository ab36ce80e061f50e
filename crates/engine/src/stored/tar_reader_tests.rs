use super::*;
use proptest::prelude::*;

/// What was heard, content joined per member.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    members: Vec<(Member, Vec<u8>)>,
}

struct Recorder<'a> {
    bytes: &'a [u8],
    heard: &'a mut Heard,
}

impl Sink for Recorder<'_> {
    fn member(&mut self, member: Member) -> Result<()> {
        self.heard.members.push((member, Vec::new()));
        Ok(())
    }
    fn content(&mut self, offset: u64, range: Range<usize>) -> Result<()> {
        let (_, content) = self.heard.members.last_mut().unwrap();
        assert_eq!(content.len() as u64, offset);
        content.extend_from_slice(&self.bytes[range]);
        Ok(())
    }
}

/// Feeds `tar` in pieces that end at `cuts`.
fn read(tar: &[u8], cuts: &[usize]) -> Result<Heard> {
    let mut heard = Heard::default();
    let mut reader = TarReader::new();
    let mut from = 0;
    for &to in cuts.iter().chain([&tar.len()]) {
        if to > from {
            let bytes = &tar[from..to];
            reader.feed(bytes, &mut Recorder { bytes, heard: &mut heard })?;
            from = to;
        }
    }
    reader.finish().map(|()| heard)
}

fn header(entry_type: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(entry_type);
    header.set_size(size);
    header.set_mode(0o640);
    header.set_uid(107);
    header.set_gid(110);
    header
}

/// A tar with every kind of member, names longer than a header holds included.
fn sample() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let long = format!("base/{}/1", "x".repeat(200));
    for (path, content) in
        [("PG_VERSION", &b"15\n"[..]), (long.as_str(), &[7; 1500]), ("empty", b""), ("block", &[1; 512])]
    {
        let mut header = header(tar::EntryType::Regular, content.len() as u64);
        builder.append_data(&mut header, path, content).unwrap();
    }
    builder.append_data(&mut header(tar::EntryType::Directory, 0), "base/5/", &b""[..]).unwrap();
    let mut link = header(tar::EntryType::Symlink, 0);
    builder.append_link(&mut link, "pg_tblspc/16400", format!("/{}", "y".repeat(150))).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn members_come_as_they_were_written() {
    let heard = read(&sample(), &[]).unwrap();
    let shown: Vec<_> = heard.members.iter().map(|(m, c)| (m.path.len(), m.size, c.len())).collect();
    assert_eq!(shown, [(10, 3, 3), (207, 1500, 1500), (5, 0, 0), (5, 512, 512), (6, 0, 0), (15, 0, 0)]);
    let (version, content) = &heard.members[0];
    assert_eq!((version.mode, version.uid, version.gid), (0o640, 107, 110));
    assert_eq!(content, b"15\n");
    assert_eq!(heard.members[4].0.path, b"base/5");
    assert!(matches!(&heard.members[5].0.kind, Kind::Link(to) if to.len() == 151));
}

#[test]
fn our_own_writer_is_understood() {
    use crate::backup::member::{self, Attributes};
    let attributes = Attributes { mode: 0o600, uid: 1, gid: 2, mtime: 5 };
    let long = [b'n'; 150];
    let mut tar = member::header(&long, member::Kind::File(3), attributes);
    tar.extend(b"abc");
    tar.resize(tar.len() + member::padding(3), 0);
    tar.extend(member::header(b"pg_tblspc/5", member::Kind::Link(&long), attributes));
    tar.extend(member::header(b"base", member::Kind::Directory, attributes));
    tar.resize(tar.len() + member::TRAILER, 0);
    let heard = read(&tar, &[]).unwrap();
    assert_eq!(heard.members[0].0.path, long);
    assert_eq!(heard.members[0].1, b"abc");
    assert_eq!(heard.members[1].0.kind, Kind::Link(long.to_vec()));
    assert_eq!(heard.members[2].0.path, b"base");
}

#[test]
fn every_cut_gives_the_same() {
    let tar = sample();
    let whole = read(&tar, &[]).unwrap();
    for cut in 0..tar.len() {
        assert_eq!(read(&tar, &[cut]).unwrap(), whole, "cut at {cut}");
    }
    let all: Vec<usize> = (1..tar.len()).collect();
    assert_eq!(read(&tar, &all).unwrap(), whole);
}

#[test]
fn a_cut_off_tar_is_noticed() {
    let tar = sample();
    let end = tar.len() - 1024;
    for len in (0..=end + 1023).step_by(97).chain([end, end + 512]) {
        assert_eq!(read(&tar[..len], &[]).unwrap_err().kind, ErrorKind::Corrupt, "{len}");
    }
}

#[test]
fn strange_headers_are_refused() {
    let with = |change: &dyn Fn(&mut tar::Header)| {
        let mut header = header(tar::EntryType::Regular, 0);
        header.set_path("a").unwrap();
        change(&mut header);
        header.set_cksum();
        let mut tar = header.as_bytes().to_vec();
        tar.resize(tar.len() + 1024, 0);
        read(&tar, &[])
    };
    with(&|_| ()).unwrap();
    for kind in [b'1', b'3', b'4', b'6', b'7', b'x', b'g', b'S', b'V', 0xFF] {
        let refused = with(&|h| h.as_mut_bytes()[156] = kind);
        assert_eq!(refused.unwrap_err().kind, ErrorKind::Corrupt, "{kind}");
    }
    assert!(with(&|h| h.as_mut_bytes()[124..136].copy_from_slice(b"99999999999\0")).is_err());
    assert!(with(&|h| h.as_mut_bytes()[124..136].fill(0xFF)).is_err());
    assert!(with(&|h| h.as_mut_bytes()[156] = b'L').is_err());
    let huge_name = with(&|h| {
        h.as_mut_bytes()[156] = b'L';
        h.set_size(1 << 40);
    });
    assert!(huge_name.is_err());
    let directory_with_content = with(&|h| {
        h.as_mut_bytes()[156] = b'5';
        h.set_size(512);
    });
    assert!(directory_with_content.is_err());
    let mut flipped = sample();
    flipped[3] ^= 1;
    assert!(read(&flipped, &[]).is_err());
}

#[test]
fn sizes_over_8_gib_are_read() {
    let mut header = header(tar::EntryType::Regular, 20 << 30);
    header.set_path("large").unwrap();
    header.set_cksum();
    let mut heard = Heard::default();
    let bytes = header.as_bytes();
    TarReader::new().feed(bytes, &mut Recorder { bytes, heard: &mut heard }).unwrap();
    assert_eq!(heard.members[0].0.size, 20 << 30);
}

proptest! {
    #[test]
    fn any_cuts_give_the_same(mut cuts in proptest::collection::vec(0usize..10_000, 0..20)) {
        let tar = sample();
        cuts.retain(|cut| *cut < tar.len());
        cuts.sort_unstable();
        prop_assert_eq!(read(&tar, &cuts).unwrap(), read(&tar, &[]).unwrap());
    }

    #[test]
    fn nonsense_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read(&bytes, &[]);
    }

    #[test]
    fn damage_never_panics(at in 0usize..6000, value: u8, fix_sum: bool) {
        let mut tar = sample();
        let at = at % tar.len();
        tar[at] = value;
        if fix_sum {
            let block = at / 512 * 512;
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(&tar[block..block + 512]);
            header.set_cksum();
            tar[block..block + 512].copy_from_slice(header.as_bytes());
        }
        let _ = read(&tar, &[100, 600]);
    }
}
