//! WAL made by hand, for tests: a writer that lays out records as PostgreSQL does.

use pg_ark_contract::units::{Lsn, SegmentSize};

/// System identifier of this WAL.
pub(crate) const SYSTEM_IDENTIFIER: u64 = 7_710_990_730_298_811_747;

/// Writes records from the beginning of a segment on.
pub(crate) struct WalWriter {
    /// All bytes so far, from the first segment's beginning.
    pub bytes: Vec<u8>,
    pub start: Lsn,
    pub size: SegmentSize,
    pub page: usize,
    pub timeline: u32,
    pub magic: u16,
    /// Start of the last record.
    pub previous: u64,
    /// Flags and length for the next page header.
    next_flags: u16,
}

impl WalWriter {
    pub(crate) fn new(start: Lsn, size: SegmentSize) -> Self {
        let (page, magic) = (8192, 0xD110);
        let previous = start.0.saturating_sub(64);
        WalWriter { bytes: Vec::new(), start, size, page, timeline: 1, magic, previous, next_flags: 0 }
    }

    /// LSN of the next byte.
    pub(crate) fn at(&self) -> u64 {
        self.start.0 + self.bytes.len() as u64
    }

    fn header(&mut self, flags: u16, remaining: u32) {
        let at = self.at();
        let long = at.is_multiple_of(self.size.bytes());
        let flags = flags | std::mem::take(&mut self.next_flags) | if long { 2 } else { 0 };
        self.bytes.extend_from_slice(&self.magic.to_le_bytes());
        self.bytes.extend_from_slice(&flags.to_le_bytes());
        self.bytes.extend_from_slice(&self.timeline.to_le_bytes());
        self.bytes.extend_from_slice(&at.to_le_bytes());
        self.bytes.extend_from_slice(&remaining.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        if long {
            self.bytes.extend_from_slice(&SYSTEM_IDENTIFIER.to_le_bytes());
            self.bytes.extend_from_slice(&u32::from(self.size).to_le_bytes());
            self.bytes.extend_from_slice(&(self.page as u32).to_le_bytes());
        }
    }

    /// Appends bytes of a record, with page headers where pages begin. `lost`: cut it off at the first page boundary.
    fn pieces(&mut self, mut rest: &[u8], mut is_first: bool, lost: bool) {
        while !rest.is_empty() {
            let offset = self.bytes.len() % self.page;
            if offset == 0 {
                if lost && !is_first {
                    return;
                }
                let flags = if is_first { (0, 0) } else { (1, rest.len() as u32) };
                self.header(flags.0, flags.1);
            }
            is_first = false;
            let take = rest.len().min(self.page - self.bytes.len() % self.page);
            self.bytes.extend_from_slice(&rest[..take]);
            rest = &rest[take..];
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    /// The bytes of a record with this body that follows the last one.
    pub(crate) fn encode(&self, rmgr: u8, info: u8, xid: u32, body: &[u8]) -> Vec<u8> {
        let mut record = ((24 + body.len()) as u32).to_le_bytes().to_vec();
        record.extend_from_slice(&xid.to_le_bytes());
        record.extend_from_slice(&self.previous.to_le_bytes());
        record.extend_from_slice(&[info, rmgr, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &record);
        record.extend_from_slice(&crc.to_le_bytes());
        record.extend_from_slice(body);
        record
    }

    /// Where the next record begins.
    fn next_start(&self) -> u64 {
        match (self.bytes.len() % self.page, self.at() % self.size.bytes()) {
            (0, 0) => self.at() + 40,
            (0, _) => self.at() + 24,
            _ => self.at(),
        }
    }

    /// Writes a record whose body is as it stands in the WAL; returns where it begins.
    pub(crate) fn raw(&mut self, rmgr: u8, info: u8, xid: u32, body: &[u8]) -> u64 {
        let (start, record) = (self.next_start(), self.encode(rmgr, info, xid, body));
        self.pieces(&record, true, false);
        self.previous = start;
        start
    }

    /// Writes a record with this main data.
    pub(crate) fn record(&mut self, rmgr: u8, info: u8, xid: u32, data: &[u8]) -> u64 {
        let mut body = match data.len() {
            0 => Vec::new(),
            length @ 1..=255 => vec![255, length as u8],
            length => [&[254][..], &(length as u32).to_le_bytes()].concat(),
        };
        body.extend_from_slice(data);
        self.raw(rmgr, info, xid, &body)
    }

    /// Writes the beginning of a record whose rest never came, and a page that says so.
    pub(crate) fn lost_record(&mut self, length: usize) -> u64 {
        let (start, record) = (self.next_start(), self.encode(10, 0, 9, &vec![7; length]));
        self.pieces(&record, true, true);
        assert_eq!(self.bytes.len() % self.page, 0, "the record must not fit on its page");
        self.next_flags = 8;
        start
    }

    /// Fills the page with a record up to `left` bytes before its end.
    pub(crate) fn fill_page(&mut self, left: usize) {
        let offset = (self.next_start() - self.start.0) as usize % self.page;
        // Header of record and of its data: 26 bytes or 29.
        let room = self.page - offset - left;
        let data = if room - 26 <= 255 { room - 26 } else { room - 29 };
        self.record(10, 0, 5, &vec![1; data]);
        assert_eq!((self.page - self.bytes.len() % self.page) % self.page, left);
    }

    /// Commits `xid` at `time`, in microseconds since 2000-01-01.
    pub(crate) fn commit(&mut self, xid: u32, time: i64) -> u64 {
        self.record(1, 0, xid, &time.to_le_bytes())
    }

    /// Rolls `xid` back.
    pub(crate) fn abort(&mut self, xid: u32, time: i64) -> u64 {
        self.record(1, 0x20, xid, &time.to_le_bytes())
    }

    pub(crate) fn restore_point(&mut self, name: &[u8], time: i64) -> u64 {
        let mut data = time.to_le_bytes().to_vec();
        data.extend_from_slice(name);
        data.resize(72, 0);
        self.record(0, 0x70, 0, &data)
    }

    /// Switches to the next segment, whose rest is zeros.
    pub(crate) fn switch(&mut self) -> u64 {
        let start = self.raw(0, 0x40, 0, &[]);
        self.bytes.resize(self.bytes.len().next_multiple_of(self.size.bytes() as usize), 0);
        start
    }

    /// The bytes up to the end of the segment, zeros behind the last record.
    pub(crate) fn segments(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len().next_multiple_of(self.size.bytes() as usize), 0);
        bytes
    }
}
