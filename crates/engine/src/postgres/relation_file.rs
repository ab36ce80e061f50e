//! Names of relation files: which relation, fork and segment a path below the data directory holds.
//!
//! Sources: `GetRelationPath` in `common/relpath.c`, `parse_filename_for_nontemp_relation` in `storage/reinit.c` and
//! `looks_like_temp_rel_name` in `storage/fd.c`; the OIDs of the two built-in tablespaces are in
//! `catalog/pg_tablespace.dat`.

/// OID of `pg_default`, the files in `base/`.
pub const DEFAULT_TABLESPACE: u32 = 1663;
/// OID of `pg_global`, the files in `global/`.
pub const GLOBAL_TABLESPACE: u32 = 1664;

/// The parts of a relation that are separate files (`ForkNumber`, common/relpath.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    /// The rows or index entries.
    Main,
    /// The free space map.
    Fsm,
    /// The visibility map.
    Vm,
    /// The empty image of an unlogged relation, from which recovery makes it anew.
    Init,
}

impl Fork {
    /// What follows the relation's number in the file name.
    pub fn suffix(self) -> &'static str {
        match self {
            Fork::Main => "",
            Fork::Fsm => "_fsm",
            Fork::Vm => "_vm",
            Fork::Init => "_init",
        }
    }

    fn of_name(name: &str) -> Option<Fork> {
        match name {
            "fsm" => Some(Fork::Fsm),
            "vm" => Some(Fork::Vm),
            "init" => Some(Fork::Init),
            _ => None,
        }
    }
}

/// One segment file of one fork of a relation that is not temporary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFile {
    /// OID of the tablespace.
    pub tablespace: u32,
    /// OID of the database; 0 for relations shared by all.
    pub database: u32,
    /// `pg_class.relfilenode`.
    pub relfilenode: u32,
    /// Which fork.
    pub fork: Fork,
    /// Number of the segment, from 0.
    pub segment: u32,
}

impl RelationFile {
    /// Reads a path below the data directory, such as `base/5/1259_vm.1`; `None` if it is not such a file.
    pub fn parse(path: &str) -> Option<Self> {
        let (tablespace, database, name) = split(path)?;
        let (relfilenode, fork, segment) = parse_file_name(name)?;
        Some(RelationFile { tablespace, database, relfilenode, fork, segment })
    }

    /// The file's own name, such as `1259_vm.1`.
    pub fn file_name(&self) -> String {
        match self.segment {
            0 => format!("{}{}", self.relfilenode, self.fork.suffix()),
            segment => format!("{}{}.{segment}", self.relfilenode, self.fork.suffix()),
        }
    }

    /// Number in the relation of the file's first page, where `relation_segment_blocks` comes from the control file.
    pub fn first_block(&self, relation_segment_blocks: u32) -> u32 {
        self.segment.saturating_mul(relation_segment_blocks)
    }
}

/// Splits a path into tablespace, database and file name.
fn split(path: &str) -> Option<(u32, u32, &str)> {
    let mut parts = path.split('/');
    let found = match parts.next()? {
        "global" => (GLOBAL_TABLESPACE, 0, parts.next()?),
        "base" => (DEFAULT_TABLESPACE, number(parts.next()?)?, parts.next()?),
        "pg_tblspc" => {
            let tablespace = number(parts.next()?)?;
            if !is_version_directory(parts.next()?) {
                return None;
            }
            (tablespace, number(parts.next()?)?, parts.next()?)
        }
        _ => return None,
    };
    parts.next().is_none().then_some(found)
}

/// Whether the name is that of a tablespace's version directory, such as `PG_15_202209061`.
pub fn is_version_directory(name: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix("PG_")
        .and_then(|rest| rest.split_once('_'))
        .is_some_and(|(a, b)| digits(a) && digits(b))
}

/// Reads `<relfilenode>[_<fork>][.<segment>]`.
pub(super) fn parse_file_name(name: &str) -> Option<(u32, Fork, u32)> {
    let (stem, segment) = match name.split_once('.') {
        Some((stem, segment)) => (stem, number(segment)?),
        None => (name, 0),
    };
    let (node, fork) = match stem.split_once('_') {
        Some((node, fork)) => (node, Fork::of_name(fork)?),
        None => (stem, Fork::Main),
    };
    Some((number(node)?, fork, segment))
}

/// A number as the server writes it: decimal, not 0, no leading zeros.
fn number(text: &str) -> Option<u32> {
    if text.starts_with('0') || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Whether a file name in a database directory is that of a temporary relation: `t<backend>_<relfilenode>`, then
/// perhaps a fork and a segment. The server removes such files when it starts.
pub fn is_temporary(file_name: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let Some((backend, rest)) = file_name.strip_prefix('t').and_then(|rest| rest.split_once('_')) else {
        return false;
    };
    let (stem, segment) = match rest.split_once('.') {
        Some((stem, segment)) => (stem, Some(segment)),
        None => (rest, None),
    };
    let (node, fork) = match stem.split_once('_') {
        Some((node, fork)) => (node, Some(fork)),
        None => (stem, None),
    };
    digits(backend)
        && digits(node)
        && fork.is_none_or(|name| Fork::of_name(name).is_some())
        && segment.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(
        tablespace: u32,
        database: u32,
        relfilenode: u32,
        fork: Fork,
        segment: u32,
    ) -> Option<RelationFile> {
        Some(RelationFile { tablespace, database, relfilenode, fork, segment })
    }

    #[test]
    fn paths_of_relations() {
        assert_eq!(RelationFile::parse("base/5/1259"), file(1663, 5, 1259, Fork::Main, 0));
        assert_eq!(RelationFile::parse("base/5/1259_vm.1"), file(1663, 5, 1259, Fork::Vm, 1));
        assert_eq!(RelationFile::parse("global/1262_fsm"), file(1664, 0, 1262, Fork::Fsm, 0));
        assert_eq!(
            RelationFile::parse("pg_tblspc/16400/PG_15_202209061/5/16401_init"),
            file(16400, 5, 16401, Fork::Init, 0)
        );
    }

    #[test]
    fn paths_of_other_files() {
        for path in [
            "",
            "/",
            "base",
            "base/5",
            "base/5/",
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "base/pgsql_tmp/1",
            "base/5/t3_16384",
            "base/5/01259",
            "base/5/0",
            "base/5/1259.0",
            "base/5/1259.",
            "base/5/1259.01",
            "base/5/1259_",
            "base/5/1259_main",
            "base/5/1259_vm_fsm",
            "base/5/1259/1",
            "base/5/4294967296",
            "base/0/1259",
            "/base/5/1259",
            "./base/5/1259",
            "global/pg_control",
            "global/5/1259",
            "pg_tblspc/16400/16401",
            "pg_tblspc/16400/PG_15/5/16401",
            "pg_tblspc/x/PG_15_202209061/5/16401",
            "pg_wal/1259",
            "base/5/+1",
            "base/5/1259.4294967296",
        ] {
            assert_eq!(RelationFile::parse(path), None, "{path:?}");
        }
    }

    #[test]
    fn temporary_relations() {
        for name in ["t3_16384", "t3_16384_vm", "t3_16384.1", "t128_16384_fsm.12"] {
            assert!(is_temporary(name), "{name}");
        }
        for name in
            ["16384", "t", "t_1", "t3_", "t3", "t3_1_x", "t3_1.", "t3_1.x", "tx_1", "t3_1_vm_1", "test_1"]
        {
            assert!(!is_temporary(name), "{name}");
        }
    }

    #[test]
    fn pages_are_numbered_across_segments() {
        assert_eq!(file(1663, 5, 1, Fork::Main, 3).unwrap().first_block(131_072), 393_216);
        assert_eq!(file(1663, 5, 1, Fork::Main, u32::MAX).unwrap().first_block(131_072), u32::MAX);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC*", name in "[t0-9_.vmfsinit]{0,20}") {
            let _ = (RelationFile::parse(&text), is_temporary(&text));
            let _ = (RelationFile::parse(&format!("base/5/{name}")), is_temporary(&name));
        }

        #[test]
        fn what_is_written_is_read(node in 1u32.., database in 1u32.., segment: u32, fork in 0usize..4) {
            let fork = [Fork::Main, Fork::Fsm, Fork::Vm, Fork::Init][fork];
            let expected = file(DEFAULT_TABLESPACE, database, node, fork, segment).unwrap();
            let path = format!("base/{database}/{}", expected.file_name());
            prop_assert_eq!(RelationFile::parse(&path), Some(expected));
        }
    }
}
