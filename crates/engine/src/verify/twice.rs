//! Segments that are stored under two codecs: a server and its standby that compress in different ways can do that.
//! What both hold must be equal.

use crate::codec::frame::FRAME_SIZE;
use crate::wal::archive::Archive;
use crate::wal::object::ObjectReader;
use pg_ark_contract::Result;

/// Compares every stored copy of a file with the first; says where one differs. `check` may end it.
///
/// # Errors
/// `Corrupt` when one cannot be decoded; what the store or `check` said.
pub fn compare(archive: &Archive, name: &str, check: &dyn Fn() -> Result<()>) -> Result<Option<String>> {
    let copies = archive.copies(name)?;
    let Some((first, others)) = copies.split_first() else { return Ok(None) };
    let (mut ours, mut theirs) = (vec![0; FRAME_SIZE], vec![0; FRAME_SIZE]);
    for other in others {
        let mut one = ObjectReader::open(archive.storage(), &first.path, first.codec)?;
        let mut two = ObjectReader::open(archive.storage(), &other.path, other.codec)?;
        let mut at = 0;
        loop {
            check()?;
            let (a, b) = (one.read(&mut ours)?, two.read(&mut theirs)?);
            let (a, b) = (ours.get(..a).unwrap_or_default(), theirs.get(..b).unwrap_or_default());
            if a != b {
                let equal = a.iter().zip(b).take_while(|(a, b)| a == b).count();
                let shown = |path: &str| archive.storage().display(path);
                return Ok(Some(format!(
                    "it is stored twice with other content: \"{}\" and \"{}\" differ from byte {} on",
                    shown(&first.path),
                    shown(&other.path),
                    at + equal
                )));
            }
            if a.is_empty() {
                break;
            }
            at += a.len();
        }
    }
    Ok(None)
}
