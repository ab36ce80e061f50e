//! An archive with segments of several timelines, for tests of `wal-get`.

use super::archive::Archive;
use super::object;
use super::store_fixture::{Place, segment, size};
use crate::postgres::wal_segment::SegmentName;
use pg_ark_contract::Timeline;
use pg_ark_contract::settings::Compression;
use std::path::PathBuf;

pub(crate) fn tl(timeline: u32, number: u64) -> SegmentName {
    SegmentName { timeline: Timeline(timeline), number }
}

/// A whole segment whose first page is of this timeline.
pub(crate) fn content(timeline: u32, number: u64) -> Vec<u8> {
    let mut bytes = segment(number, 1);
    bytes[4..8].copy_from_slice(&timeline.to_le_bytes());
    bytes
}

/// Stores bytes as a segment; returns the object's file.
pub(crate) fn store_as(place: &Place, timeline: u32, number: u64, bytes: &[u8]) -> PathBuf {
    let archive = place.archive();
    let path = format!("{}.zst", archive.path(&tl(timeline, number).file_name(size())).unwrap());
    let none = &mut |_: &[u8]| Ok(());
    let stored =
        object::encode(Compression::default(), &mut &bytes[..], bytes.len() as u64, "test", none).unwrap();
    assert!(archive.storage().create(&path, stored).unwrap());
    place.repository.storage().folder().join(path)
}

/// Stores a segment.
pub(crate) fn store(place: &Place, timeline: u32, number: u64) -> PathBuf {
    store_as(place, timeline, number, &content(timeline, number))
}

/// Stores a history file.
pub(crate) fn plain(place: &Place, name: &str, text: &str) {
    let archive: Archive = place.archive();
    assert!(archive.storage().create(&archive.path(name).unwrap(), text.as_bytes().to_vec()).unwrap());
}
